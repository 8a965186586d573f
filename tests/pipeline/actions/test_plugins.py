from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepwell.client import Engine
from stepwell.errors import UsageError
from stepwell.pipeline import run_plugin
from stepwell.pipeline.actions.upload import DefaultUploadAction
from stepwell.pipeline.plugins import find_action

ACTION = """
from pydantic import BaseModel
from stepwell.pipeline.actions import BaseAction
from stepwell.pipeline.steps import BaseStep, BaseStepContext, StepResult

class Say(BaseStep):
    name = "say"
    progress_weight = 1.0
    def execute(self, context):
        return StepResult(data={"word": "WORD"})

class Params(BaseModel):
    word: str = ""

class Hello(BaseAction[Params]):
    action_name = "hello"
    def setup_steps(self, registry):
        registry.register(Say())
    def create_context(self):
        return BaseStepContext(self.runtime_ctx)
    def result(self, context):
        return context.step_results[0].data
"""


def test_a_plugin_is_a_file_a_module_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    (tmp_path / "greeting_a.py").write_text(ACTION.replace("WORD", "file"))
    assert run_plugin(str(tmp_path / "greeting_a.py"), "hello", {}, engine=engine)["word"] == "file"
    (tmp_path / "greeting_b.py").write_text(ACTION.replace("WORD", "module"))
    monkeypatch.chdir(tmp_path)
    assert run_plugin("greeting_b", "hello", engine=engine)["word"] == "module"
    for word in ("one", "two"):
        folder = tmp_path / word
        folder.mkdir()
        (folder / "config.yaml").write_text('actions: {greet: {entrypoint: "plugin_main:Hello"}}')
        (folder / "plugin_main.py").write_text(ACTION.replace("WORD", word))
        assert run_plugin(str(folder), "greet", engine=engine)["word"] == word


def test_the_built_in_actions(tmp_path: Path, engine: Engine) -> None:
    for plugin in ("plugin", "builtin"):
        assert find_action(plugin, "upload") is DefaultUploadAction
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    params = {"name": "up", "path": str(tmp_path / "a"), "storage": str(tmp_path / "s")}
    assert run_plugin("plugin", "upload", params, engine=engine, run_id="r")["uploaded_files"] == 1
    assert run_plugin("nothing", "upload", params, engine=engine, run_id="r", action_cls=DefaultUploadAction)


def test_what_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Plugin 'no_such_plugin' not found; there are builtin"):
        run_plugin("no_such_plugin", "upload")
    with pytest.raises(UsageError) as caught:
        run_plugin("builtin", "nope")
    text = "Action 'nope' not found; plugin 'builtin' has add_task_data, dataset, export, train, upload"
    assert str(caught.value) == text
    (tmp_path / "config.yaml").write_text("actions: [1]")
    with pytest.raises(UsageError, match=r"config\.yaml: expected actions: "):
        run_plugin(str(tmp_path), "x")


@pytest.mark.parametrize("place", ["no_such_module_at_all:X", "json:loads"])
def test_an_entry_that_is_no_action(place: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f'actions: {{x: {{entrypoint: "{place}"}}}}')
    with pytest.raises(UsageError, match=r"not found|is no action"):
        run_plugin(str(tmp_path), "x")
