"""Who answers to the ids of comfyui_controlnet_aux: that pack, Fathom in its place, Fathom's alias, or the heir."""

from __future__ import annotations

import json
import sys
import types

import pytest
from comfyui_server import ROOT, ComfyUI, comfyui_checkouts

import fathom
from fathom.annotator.host import registry
from fathom.nodes import dropin
from fathom.nodes.dropin import replacements, takeover

ZOE, AIO = "Zoe-DepthMapPreprocessor", "AIO_Preprocessor"


class Theirs:
    RELATIVE_PYTHON_MODULE = "custom_nodes.comfyui_controlnet_aux"


class Another:
    RELATIVE_PYTHON_MODULE = "custom_nodes.some_pack"


class Own:
    RELATIVE_PYTHON_MODULE = "custom_nodes.fathom"


@pytest.fixture
def tables(monkeypatch):
    """ComfyUI's tables with a server beside them: {id: class}, {id: display name}, and what is asked of the server."""
    classes = {ZOE: Theirs, "BAE-NormalMapPreprocessor": Another, AIO: Theirs, "FathomEstimateDepth": Own}
    classes |= {"HEDPreprocessor": Theirs, "OpenposePreprocessor": Theirs}
    names = {ZOE: "Zoe Depth Map"}
    asked = []
    queue = types.SimpleNamespace(
        set_flag=lambda name, value: asked.append((name, value)), get_flags=lambda reset: {}, currently_running={}
    )
    server = types.SimpleNamespace(
        PromptServer=types.SimpleNamespace(instance=types.SimpleNamespace(prompt_queue=queue))
    )
    comfy = types.SimpleNamespace(NODE_CLASS_MAPPINGS=classes, NODE_DISPLAY_NAME_MAPPINGS=names)
    monkeypatch.setitem(sys.modules, "nodes", comfy)
    monkeypatch.setitem(sys.modules, "server", server)
    monkeypatch.setattr(takeover, "_before", {})
    return classes, names, asked


def test_fathom_answers_while_the_setting_is_on(tables, monkeypatch, caplog):
    classes, names, asked = tables
    caplog.set_level("INFO", takeover.log.name)
    takeover.sync()
    assert classes[ZOE] is Theirs and not asked
    monkeypatch.setenv("FATHOM_ANSWER_FOR_AUX", "1")
    for _ in range(3):
        takeover.sync()
    node = classes[ZOE]
    assert issubclass(node, dropin.PREPROCESSORS[ZOE]) and not node.DEPRECATED
    assert node.DESCRIPTION.startswith("Answered by Fathom in place of comfyui_controlnet_aux")
    assert node.RELATIVE_PYTHON_MODULE == "custom_nodes.fathom" and names[ZOE] == "Zoe Depth Map (Fathom)"
    assert classes["BAE-NormalMapPreprocessor"] is Another and classes[AIO] is Theirs
    assert classes["HEDPreprocessor"] is Theirs is classes["OpenposePreprocessor"], "lines and poses stay the pack's"
    assert [r.getMessage() for r in caplog.records] == [f"Fathom answers in place of comfyui_controlnet_aux for {ZOE}"]
    monkeypatch.setenv("FATHOM_ANSWER_FOR_AUX", "0")
    for _ in range(3):
        takeover.sync()
    assert classes[ZOE] is Theirs and names[ZOE] == "Zoe Depth Map"
    assert len(caplog.records) == 2 and asked == [("free_memory", True)] * 2


def test_what_was_replaced_meanwhile_is_not_given_back(tables, monkeypatch):
    classes, _, _ = tables
    monkeypatch.setenv("FATHOM_ANSWER_FOR_AUX", "1")
    takeover.sync()
    classes[ZOE] = Another
    monkeypatch.setenv("FATHOM_ANSWER_FOR_AUX", "0")
    takeover.sync()
    assert classes[ZOE] is Another


@pytest.mark.parametrize(("running", "calls"), [(False, 3), (True, 1)])
def test_an_idle_queue_is_woken_until_it_has_dropped_its_results(monkeypatch, running, calls):
    asked = []
    queue = types.SimpleNamespace(
        set_flag=lambda *flag: asked.append(flag),
        # It looks when it is woken for the third time: twice it was not waiting yet.
        get_flags=lambda reset: {} if len(asked) > 2 else {"free_memory": True},
        currently_running={1: "a prompt"} if running else {},
    )
    instance = types.SimpleNamespace(prompt_queue=queue)
    monkeypatch.setitem(
        sys.modules, "server", types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    )
    registry.forget_results()
    assert asked == [("free_memory", True)] * calls


def test_nothing_happens_outside_comfyui():
    takeover.follow()
    takeover.prepare({"1": {"class_type": "LoadImage", "inputs": {}}})
    assert dropin.offer(dropin.DROP_INS) == set()


@pytest.mark.parametrize("old", replacements.OFFERS)
def test_an_heir_takes_every_widget_under_its_name(old):
    made = replacements.OFFERS[old]
    types_of = {id: fathom.NODE_CLASS_MAPPINGS[id].INPUT_TYPES() for id in (old, made.heir)}
    was, heir = ({**t["required"], **t.get("optional", {})} for t in types_of.values())
    assert list(was) == ["image", *made.widgets]
    assert set(types_of[made.heir]["required"]) <= {"image", "resolution", *made.fixed}
    for name in made.widgets:
        assert str(was[name][0]) == str(heir[name][0])
    for name, value in made.fixed.items():
        assert value in heir[name][0]
    assert fathom.NODE_CLASS_MAPPINGS[old].RETURN_TYPES[0] == fathom.NODE_CLASS_MAPPINGS[made.heir].RETURN_TYPES[0]
    assert replacements.PREFIX + old in dropin.DROP_INS


def test_a_posted_graph_finds_the_alias_of_an_id_that_nobody_holds():
    graph = {"1": {"class_type": ZOE, "inputs": {}}, "2": {"class_type": AIO}, "3": None, "4": {"class_type": 5}}
    replacements.rename(graph, {})
    assert [graph["1"]["class_type"], graph["2"]["class_type"]] == ["Inference_Core_" + ZOE, AIO]
    held = {"1": {"class_type": ZOE}}
    replacements.rename(held, {ZOE})
    assert held["1"]["class_type"] == ZOE


@pytest.mark.comfyui
@pytest.mark.skipif(not comfyui_checkouts(), reason="no ComfyUI")
def test_inside_comfyui_the_setting_works_while_it_runs(tmp_path):
    """One server: the pack holds Zoe, the setting takes it over and gives it back, BAE is offered for replacement."""
    server = ComfyUI(comfyui_checkouts()[-1], tmp_path / "comfyui", packs={"comfyui_controlnet_aux": "stand_ins_aux"})
    try:
        settings = server.base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        (server.base / "input" / "photo.png").write_bytes((ROOT / "assets" / "sample.png").read_bytes())

        def outcome(id, **more):
            graph = {
                "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
                "2": {"class_type": id, "inputs": {"image": ["1", 0], **more}},
                "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
            }
            entry = server.run(graph)
            told = [m[1]["exception_message"] for m in entry["status"]["messages"] if m[0] == "execution_error"]
            return told[0] if told else "ran"

        assert outcome(ZOE) == "ran"
        settings.write_text(json.dumps({"Fathom.AnswerForAux": True}))
        assert "ZoeD_M12_N.pt" in outcome(ZOE, resolution=64)
        info = server.get(f"/object_info/{ZOE}")[ZOE]
        assert info["display_name"] == "Zoe Depth Map (Fathom)" and "in place of" in info["description"]
        settings.write_text(json.dumps({"Fathom.AnswerForAux": False}))
        assert outcome(ZOE, resolution=128) == "ran"
        log = server.log()
        assert log.count("Fathom answers in place of") == 1 and log.count("gave back") == 1
        bae = "BAE-NormalMapPreprocessor"
        assert "scannet.pt" in outcome(bae)
        nodes = server.get("/object_info")
        if bae in nodes:
            pytest.skip("this ComfyUI has no replacements")
        offered = server.get("/node_replacements")
        assert ZOE not in offered and offered[bae][0]["new_node_id"] == "FathomNormalBae"
        assert offered[bae][0]["old_widget_ids"] == ["resolution"]
    finally:
        server.stop()
