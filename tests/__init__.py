"""The tests. Nothing here asks a network: a missing model is an error at once."""

import os

# Before anything imports huggingface_hub, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
