"""Every YAML composes, and names of searches follow what decides their results."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

import conf
from vtw_search import Policy
from vtw_search.config import load_config, validate
from vtw_search.errors import ConfigError
from vtw_search.evaluation.model import load_model
from vtw_search.facts import ModelFacts
from vtw_search.profile_config import load_profile_config
from vtw_search.recipes import RECIPES
from vtw_search.settings import LimitSettings

FOLDER = Path(conf.__file__).parent
OPTIONS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.yaml"))


@cache
def reference_facts() -> ModelFacts:
    return load_model("reference", device="cpu").facts


def test_there_are_options() -> None:
    assert {option.split("/")[0] for option in OPTIONS} == {
        "experiment", "limits", "model", "profile", "recipe", "sampler", "space", "storage", "task", "tracking",
    }  # fmt: skip


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith("recipe/")])
def test_every_yaml_composes(option: str) -> None:
    group, name = option.split("/")
    needed = {"jsonl": ["task.path=my.jsonl"], "postgres": ["storage.url=postgresql://me@host/db"]}.get(name, [])
    config = load_config(f"{group}={name}", *needed)
    if group == "task":
        assert list(config.named_tasks) == [name]


def test_presets_of_limits_say_what_their_names_promise() -> None:
    fastest, budget = load_config("limits=fastest_2_points").limits, load_config("limits=half_the_macs").limits
    assert (fastest.kl_nats, fastest.accuracy_drop, fastest.prefer) == (None, 0.02, ["latency_ratio"])
    assert (budget.at_most, budget.prefer) == ({"macs_ratio": 0.5}, ["accuracy_drop", "kl_answer_nats"])
    assert load_config("limits=first_token_200ms").limits.at_most == {"latency_ms": 200}
    assert load_config("limits=weighted").limits.weights == {"macs_ratio": 1.0, "accuracy_drop": 10.0}
    memory = load_config("limits=kv_30_percent").limits
    assert (memory.at_most, memory.prefer) == ({"cache_ratio": 0.3}, ["accuracy_drop", "kl_answer_nats"])
    assert load_config("limits=vtw_paper").limits.confidence is None


@pytest.mark.parametrize("option", [each for each in OPTIONS if each.startswith(("recipe/", "model/", "profile/"))])
def test_every_yaml_of_a_profile_composes(option: str) -> None:
    group, name = option.split("/")
    chosen = {"recipe": "vtw", group: name}
    config = load_profile_config(*(f"{key}={value}" for key, value in chosen.items()))
    assert config.recipe is not None
    assert config.recipe.name == chosen["recipe"]
    facts = reference_facts()
    assert config.recipe.policy(facts) == RECIPES[chosen["recipe"]].policy(
        facts, {key: parameter.default for key, parameter in RECIPES[chosen["recipe"]].parameters(facts).items()}
    )


def test_the_parameters_of_a_recipe_are_its_own() -> None:
    recipe = load_profile_config("recipe=vtw", "recipe.layer=3").recipe
    assert recipe is not None
    assert recipe.policy(reference_facts()) == Policy.withdraw(3)
    wrong = load_profile_config("recipe=fastv", "+recipe.kep=0.5").recipe
    assert wrong is not None
    with pytest.raises(ConfigError, match="did you mean 'keep'"):
        wrong.policy(reference_facts())


def test_spaces_compose() -> None:
    assert list(load_config("space=[himap,vtw]").space.recipes) == ["himap", "vtw"]


def test_a_user_adds_options_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "limits").mkdir()
    (tmp_path / "limits" / "mine.yaml").write_text("defaults: [default]\nkl_nats: 0.5\n")
    assert load_config("limits=mine", config_dirs=[str(tmp_path)]).limits.kl_nats == 0.5


def test_the_jsonl_task_takes_its_name_and_path() -> None:
    config = load_config("task=[jsonl,digits_read]", "task.path=a b.jsonl", "task.name=mine")
    assert set(config.named_tasks) == {"mine", "digits_read"}
    assert config.named_tasks["mine"].options == {"path": "a b.jsonl"}


def test_a_second_task_file_is_a_task_of_its_own() -> None:
    second = "+tasks.two={source: jsonl, options: {path: two.jsonl}, max_new_tokens: 8}"
    config = load_config("task=jsonl", "task.path=my.jsonl", "task.name=mine", second)
    assert {name: task.options["path"] for name, task in config.named_tasks.items()} == {
        "mine": "my.jsonl", "two": "two.jsonl",
    }  # fmt: skip


def test_an_option_is_not_chosen_twice() -> None:
    with pytest.raises(ConfigError, match=r"chosen once, got 'task=\[jsonl, jsonl\]'.*\+tasks\.two="):
        load_config("task=[jsonl, jsonl]", "task.path=my.jsonl")


@pytest.mark.parametrize("name", ["../up", "a/b", "x" * 101])
def test_a_task_is_a_name(name: str) -> None:
    task = load_config().tasks["digits_read"].model_dump()
    for tasks in ({name: task}, {"one": {**task, "name": name}}):
        with pytest.raises(ConfigError, match=r"tasks.*letters, digits.*choose another name"):
            validate({"model": {"path": "reference"}, "tasks": tasks})


def test_a_derived_name_follows_what_decides_the_result() -> None:
    name = load_config().search_name
    assert name == load_config("tracking=none", "runs=elsewhere").search_name
    assert name != load_config("limits.kl_nats=0.5").search_name
    assert load_config("search=mine").search_name == "mine"
    sweep = {load_config("search=mine", "sweep=s", f"seed={seed}").search_name for seed in range(3)}
    assert len(sweep) == 3


def test_workers_and_storages_are_no_part_of_a_search() -> None:
    plain = load_config("search=mine")
    assert load_config("search=mine", "worker=3").search_name == "mine"
    storage = ("storage=postgres", "storage.url=postgresql+psycopg://me@host/db")
    assert load_config("search=mine", "worker=1", *storage).digest == plain.digest
    assert (
        load_config("search=mine", "sweep=s", "worker=1").search_name
        == load_config("search=mine", "sweep=s").search_name
    )


def test_a_value_of_a_slice_can_be_limited_on_the_command_line() -> None:
    """`name=value` is what files say; a shell and Hydra take `name.value`."""
    config = load_config(
        "+limits.slices.digits.accuracy_drop=0.1", "+limits.slices.digits.4.accuracy_drop=0.2",
        "+limits.slices.downsampling_fails.yes.kl_nats=0.3", "+limits.per_task.digits_read.slices.digits.2.kl_nats=0.4",
    )  # fmt: skip
    assert config.limits.slices == {
        "digits": {"accuracy_drop": 0.1}, "digits=4": {"accuracy_drop": 0.2},
        "downsampling_fails=yes": {"kl_nats": 0.3},
    }  # fmt: skip
    assert config.limits.per_task["digits_read"].slices == {"digits=2": {"kl_nats": 0.4}}
    assert type(config).model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ConfigError, match=r"limits.slices.digits=4.macs"):
        load_config("+limits.slices.digits.4.macs=0.2")


@pytest.mark.parametrize("content", ["0.05", "0", "null", "[1]", "much"])
def test_a_slice_with_a_number_in_place_of_limits_is_refused_by_its_name(content: str) -> None:
    with pytest.raises(ConfigError, match=r"^limits\.slices\.digits: input should be a valid dict"):
        load_config(f"+limits.slices.digits={content}")
    with pytest.raises(ConfigError, match=r"^limits\.per_task\.digits_read\.slices\.digits: input should be"):
        load_config(f"+limits.per_task.digits_read.slices.digits={content}")


def test_a_value_of_a_slice_that_is_limited_twice_loses_no_limit() -> None:
    both = {"digits=4": {"kl_nats": 0.1}, "digits": {4: {"accuracy_drop": 0.2}}}
    with pytest.raises(ValidationError, match=r"digits=4 must be limited in one place"):
        LimitSettings.model_validate({"slices": both})
