"""The hub: a repository's weights and what lies beside them, from its cache or over the network."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from qkutils import store

CONFIG = "config.json"  # without it, the weights tell neither heads nor activation nor eps
BESIDE = (CONFIG, "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order they count

_MEANINGS = {  # of the classes of the hub's client, the nearest first
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set and its cache has it not: unset it, or fetch it "
    "once where there is a network: qkutils models fetch {name}",
    "GatedRepoError": "it is gated: ask for access on its page there, then run `hf auth login`",
    "RepositoryNotFoundError": "it has no such repository, or hides it: look at its page there",
    "RemoteEntryNotFoundError": "the repository lacks its weights: look at its page there",
    "LocalEntryNotFoundError": "it can't be reached: look at the network, then run this again",
}
_OTHER = "it breaks off ({reason}): run this again; files that are whole are kept"


def cached(repository: str, beside: str = CONFIG) -> Path | None:
    """The weights of a repository in the hub's cache, with the file beside them that is needed."""
    if beside and not isinstance(try_to_load_from_cache(repository, beside), str):
        return None
    found = (try_to_load_from_cache(repository, name) for name in WEIGHTS)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def snapshot(repository: str) -> Path:
    """The weights of a repository, with what lies beside them: out of the cache, else fetched.

    Raises what `refusal` makes of the client's errors.
    """
    if path := cached(repository):
        return path
    try:
        for name in BESIDE:
            _fetched(repository, name)
        path = next(filter(None, (_fetched(repository, name) for name in WEIGHTS)), None)
    except Exception as error:  # the hub's client raises some ten unrelated classes
        raise refusal(repository, error) from error
    if path is None:
        raise FileNotFoundError(f"{repository}: has no {' or '.join(WEIGHTS)}; look at its page")
    return path


def _fetched(repository: str, name: str) -> Path | None:
    """One file of a repository; None where it has none of that name."""
    try:
        return Path(hf_hub_download(repository, name))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def refusal(name: str, error: BaseException) -> OSError:
    """What went wrong at the hub, in one line with a remedy."""
    if isinstance(error, OSError) and error.errno in store.FULL:
        return OSError(error.errno, f"{name}: the disk of the hub's cache is full; make room on it")
    chain = [each for each in (error.__cause__, error) if each]
    classes = [kind.__name__ for each in chain for kind in type(each).__mro__]
    meaning = next((_MEANINGS[known] for known in classes if known in _MEANINGS), _OTHER)
    reason = " ".join(str(error).split()) or type(error).__name__
    meaning = meaning.format(name=name, reason=reason)
    return FileNotFoundError(f"{name}: the hub gave nothing: {meaning}")
