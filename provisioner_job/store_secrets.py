"""The texts of a store's Secret, made as the spec says: random ones, and those put together from them.

Random but otherwise pure. What is made once stays: a database was initialised with it.
"""

import re
import secrets
import string
from collections.abc import Iterator, Mapping
from typing import Final

from provisioner_job.errors import PhaseError

__all__ = ["filled", "new_texts", "secret_among"]

Recipes = Mapping[str, Mapping[str, str | int]]
"""By key: `{"hex": bytes, "prefix": text}`, `{"letters": characters}` or `{"text": template}`.

In a template `{host}` and keys of random texts have their places. Recipes have no order: JSON's objects have none.
"""
_LETTERS: Final = string.ascii_letters + string.digits
_PLACE: Final = re.compile(r"\{(\w+)\}")
_HOST: Final = "host"


def new_texts(recipes: Recipes, host: str) -> dict[str, str]:
    """Return a fresh set of texts.

    Raises
    ------
    PhaseError
        SECRET_RECIPE: a recipe is unknown, or has a place for what is neither the host nor random.
    """
    random = {key: _random(key, recipe) for key, recipe in recipes.items() if "text" not in recipe}
    known = random | {_HOST: host}
    return random | {key: filled(str(recipe["text"]), known) for key, recipe in recipes.items() if "text" in recipe}


def _random(key: str, recipe: Mapping[str, str | int]) -> str:
    if "hex" in recipe:
        return str(recipe.get("prefix", "")) + secrets.token_hex(int(recipe["hex"]))
    if "letters" in recipe:
        return "".join(secrets.choice(_LETTERS) for _ in range(int(recipe["letters"])))
    detail = f"{key} is made by {', '.join(recipe)}, which this provisioner does not know"
    raise PhaseError("SECRET_RECIPE", "The store's Secret cannot be made", detail)


def filled(template: str, known: Mapping[str, str]) -> str:
    """Return a template with the texts its places name; `PhaseError` SECRET_RECIPE for a name without a text."""
    missing = [name for name in _PLACE.findall(template) if name not in known]
    if missing:
        raise PhaseError("SECRET_RECIPE", "The store's Secret cannot be made", f"no text is called {missing[0]}")
    return _PLACE.sub(lambda place: known[place[1]], template)


def secret_among(recipes: Recipes, texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts that no log may show: all but those that are made of the host alone."""
    for key, value in texts.items():
        template = recipes.get(key, {}).get("text")
        if template is None or set(_PLACE.findall(str(template))) - {_HOST}:
            yield value
