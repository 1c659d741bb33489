"""A stage of a policy as frozen data: one operator at one place. Nothing here knows a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from vtw_search.frozen import Frozen, FrozenModel
from vtw_search.policies.versions import (
    KEEP_SCHEMA,
    STAGE_FIELDS_1,
    Keep,
    form_of,
    plain,
    read_keep,
    version_of,
    write_keep,
)


def _text(value: str) -> str:
    value.encode()  # half a surrogate pair is no text; its error is a ValueError
    return value


def _number(value: Any) -> Any:
    """Return a layer as it is; JSON tools may write 2 as 2.0, but true and "2" are no numbers."""
    value = plain(value)
    if isinstance(value, bool | str):
        raise ValueError("a layer is a number")
    return value


Name = Annotated[StrictStr, AfterValidator(_text)]
Option = Annotated[
    StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | Name, BeforeValidator(plain)
]
# Sorted, so that equal options are hashed and written alike.
Options = Annotated[
    Mapping[Name, Option], AfterValidator(lambda given: Frozen({name: given[name] for name in sorted(given)}))
]


class _WithOptions(FrozenModel):
    options: Options = Frozen()

    # Both by the text, because Python takes 1, 1.0 and True for equal.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.model_dump_json() == other.model_dump_json()

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class ScorerChoice(_WithOptions):
    """A scorer by name, and its own options."""

    name: str

    def label(self) -> str:
        """Return a short name for tables."""
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


class Stage(_WithOptions):
    """One operator at one place.

    Attributes:
        site: `decoder` acts on the input of decoder layer `layer`; `vision` acts before the decoder.
        layer: K, 0-based, from 1 to L; at K = L nothing is left to save. 0 where the site is `vision`.
        operator: name of an operator, for example `withdraw`.
        keep: how many of the visual tokens that are left stay: a share in (0, 1] as a float, a count as an int, or the
            name of a budget that the scores themselves decide. Files of schema version 2 name which of them it is.
        scorer: what ranks the visual tokens.
        position: `keep` leaves every token its position; `recount` numbers the shortened sequence anew.
        options: the operator's own.
    """

    site: Literal["vision", "decoder"] = "decoder"
    layer: Annotated[int, BeforeValidator(_number)] = Field(ge=0, le=2**31 - 1)
    operator: str
    keep: Annotated[Keep | None, WithJsonSchema(KEEP_SCHEMA)] = None
    scorer: ScorerChoice | None = None
    position: Literal["keep", "recount"] = "keep"

    @model_validator(mode="before")
    @classmethod
    def _fields_of_version(cls, content: Any, info: ValidationInfo) -> Any:
        if version_of(info.context) == 1 and isinstance(content, Mapping):
            later = [str(name) for name in content if name in cls.model_fields and name not in STAGE_FIELDS_1]
            if later:
                raise ValueError(f"{', '.join(later)} needs schema_version 2")
        return content

    @field_validator("keep", mode="before")
    @classmethod
    def _read_keep(cls, keep: Any, info: ValidationInfo) -> Any:
        return read_keep(keep, version_of(info.context))

    @model_validator(mode="after")
    def _layer_of_site(self) -> Stage:
        if (self.site == "vision") != (self.layer == 0):
            raise ValueError("layer must be 0 before the decoder (site vision) and at least 1 inside it")
        return self

    @model_serializer(mode="wrap")
    def _in_version(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        version = self._form(version_of(info.context))
        if "keep" in content:
            content["keep"] = write_keep(self.keep, version)
        return content if version > 1 else {name: content[name] for name in STAGE_FIELDS_1 if name in content}

    @property
    def schema_version(self) -> int:
        """The lowest schema version of policy files that says all that this stage says, and says it in one way."""
        return self._form(None)

    def _form(self, asked: int | None) -> int:
        return form_of(dict(self), {name: field.default for name, field in type(self).model_fields.items()}, asked)

    def label(self) -> str:
        """Return a short name for tables, such as `prune@2:0.5:text_to_visual`."""
        place = self.operator if self.site == "vision" else f"{self.operator}@{self.layer}"
        scorer = self.scorer.label() if self.scorer else None
        options = [f"{name}={value}" for name, value in self.options.items()]
        recount = ["recount"] if self.position == "recount" else []
        return ":".join(
            str(part) for part in (place, _amount(self.keep), scorer, *options, *recount) if part is not None
        )


def _amount(keep: float | int | str | None) -> float | int | str | None:
    """Return `keep` for a label. A share is never a whole number: 1 is one token, 1.0 are all."""
    if not isinstance(keep, float):
        return keep
    short = f"{keep:.3g}"
    return repr(keep) if short == "1" else short
