"""Every own node, input and output has a name in every language, and nothing else has."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LANGUAGES = ("de", "en", "es", "fr", "ja", "ko", "ru", "zh")

spec = importlib.util.spec_from_file_location("docs_locales", ROOT / "scripts" / "locales.py")
locales = importlib.util.module_from_spec(spec)
spec.loader.exec_module(locales)


def read(language, name="nodeDefs"):
    return json.loads((ROOT / "locales" / language / f"{name}.json").read_text(encoding="utf-8"))


def leaves(tree, at=()):
    """{path: text} of a nested dictionary."""
    if isinstance(tree, str):
        return {at: tree}
    return {path: text for key, branch in tree.items() for path, text in leaves(branch, (*at, key)).items()}


def test_these_languages_are_there():
    assert sorted(p.name for p in (ROOT / "locales").iterdir()) == list(LANGUAGES)


def test_english_is_what_the_nodes_declare():
    assert read("en") == locales.english(), "run python scripts/locales.py"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_is_missing_and_none_is_left_over(language):
    wanted, held = leaves(locales.english()), leaves(read(language))
    help = "run python scripts/locales.py, then give words to what it lists"
    assert not sorted(wanted.keys() - held.keys()), help
    assert not sorted(held.keys() - wanted.keys()), help
    for name in ("main", "settings"):
        assert leaves(read(language, name)).keys() == leaves(read("en", name)).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_plain_text(language):
    for path, text in [t for name in ("nodeDefs", "main", "settings") for t in leaves(read(language, name)).items()]:
        # The front end's messages give these characters a meaning of their own.
        assert text.strip() == text and text and not re.search(r"[{}@|$%]", text), path


@pytest.mark.parametrize("language", [x for x in LANGUAGES if x != "en"])
def test_names_are_translated(language):
    english = leaves(locales.english())
    same = [path for path, text in leaves(read(language)).items() if text == english.get(path)]
    assert len(same) < 0.2 * len(english), same
    for id, told in read(language).items():
        assert told["display_name"].startswith("Fathom "), id
        inputs = [entry["name"] for entry in told.get("inputs", {}).values()]
        assert len(set(inputs)) == len(inputs), f"{id}: two inputs have one name: {inputs}"


def test_the_table_covers_every_category_and_socket():
    main = read("en", "main")
    from fathom.nodes import NODES

    own = {c.split("/")[1] for n in NODES if (c := n.CATEGORY).startswith("Fathom/")}
    kinds = {t for n in NODES for t in n.RETURN_TYPES if t.startswith("FATHOM_")}
    assert own == set(main["nodeCategories"]) and kinds == set(main["dataTypes"])


def test_settings_have_names_in_english_as_the_panel_declares_them():
    declared = (ROOT / "web" / "js" / "settings.mjs").read_text(encoding="utf-8")
    ids = re.findall(r'"(Fathom\.\w+)"', declared)
    assert [id.replace(".", "_") for id in ids] == list(read("en", "settings"))
    for text in leaves(read("en", "settings")).values():
        assert text in declared


def test_a_new_input_takes_the_words_of_its_name_and_others_are_told():
    source = locales.english()
    held = json.loads(json.dumps(read("zh")))
    word = held["FathomFog"]["inputs"]["depth"]["name"]
    del held["FathomFog"]["inputs"]["depth"], held["FathomFog"]["inputs"]["horizon"]
    held["FathomFog"]["inputs"]["gone"] = {"name": "x"}
    made, missing = locales.fill(source, held)
    assert made["FathomFog"]["inputs"]["depth"]["name"] == word
    assert missing == ["FathomFog.inputs.horizon"] and "gone" not in made["FathomFog"]["inputs"]


@pytest.mark.comfyui
def test_comfyui_serves_the_languages(comfyui):
    served = comfyui.get("/i18n")
    for language in LANGUAGES:
        for id, told in read(language).items():
            assert served[language]["nodeDefs"][id] == told
        assert served[language]["dataTypes"]["FATHOM_DEPTH"]
