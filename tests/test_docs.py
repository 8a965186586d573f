"""The docs are a contract: every public name is in the reference, and the blocks of tutorial and howtos run."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import stepwell
import stepwell.durable
import stepwell.testing
from scripts import docs_names

ROOT = Path(__file__).parent.parent
PAGES = sorted([
    *(ROOT / "docs" / "tutorial").glob("*.md"),
    *(ROOT / "docs" / "howto").glob("*.md"),
    *(ROOT / "docs" / "reference" / page for page in ("plugins.md", "serdes.md")),
])  # fmt: skip


def test_every_public_name_is_in_the_reference() -> None:
    """durable.md §19.13: with what its docstring says; types are mypy's affair, which reads these tests, too."""
    text = (ROOT / "docs" / "reference" / "durable.md").read_text("utf-8")
    names = {name for module in docs_names.MODULES for name in import_module(module).__all__} - {"__version__"}
    assert sorted(name for name in names if f"- `{name}`:" not in text) == []
    for module in pkgutil.walk_packages(stepwell.durable.__path__, "stepwell.durable."):
        if "._" not in module.name and not module.ispkg:
            assert module.name.removeprefix("stepwell.durable.") in docs_names.PARTS


def test_every_public_name_of_pipelines_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "pipeline.md").read_text("utf-8")
    names = {name for module in docs_names.PIPELINE for name in import_module(module).__all__}
    assert sorted(name for name in names if f"- `{name}`:" not in text) == []


def test_every_public_name_of_the_test_kit_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "testing.md").read_text("utf-8")
    assert [name for name in stepwell.testing.__all__ if f"- `{name}`:" not in text] == []


@pytest.mark.parametrize("script", ["docs_cli.py", "docs_names.py", "docs_actions.py"])
def test_the_references_are_what_the_code_says(script: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / script), "--check"], check=True)


CALL = """
import app, stepwell

engine = stepwell.Engine("memory://docs")
handle = engine.start_run(app.{name}, {{"name": "x", "amount": 10}})
while handle.status not in ("succeeded", "failed"):
    for asked in handle.callbacks():
        if asked["form"]:
            handle.approve(asked["name"], {{"amount": 25}})
        else:
            engine.send_callback_success(asked["id"], "yes")
    try:
        handle.wait(0.02)
    except TimeoutError:
        pass
try:
    print(handle.result())
except stepwell.RunFailed as error:
    assert isinstance(error, ZeroDivisionError), error
engine.stop()
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    """Each block that has a durable function is saved as ``app.py`` and run; what it asks for is answered. The others
    are run beside the last of them, tests by pytest; one whose first line names a file is saved as that, too.
    """
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        command = ["-c", block]
        if file := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / file[1]).write_text(block)
        if names := re.findall(r"@durable_execution\n(?:async )?def (\w+)", block):
            (tmp_path / "app.py").write_text(block.replace("24 * 3600", "0.01"))  # a day, in real time
            command = ["-c", CALL.format(name=names[-1])]
        elif "def test_" in block:
            (tmp_path / "test_page.py").write_text(block)
            command = ["-m", "pytest", "-q", "-W", "error", "test_page.py"]
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_relative_links_lead_somewhere() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_true(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0].replace("context.wait(30)", "context.wait(0.01)")
    (tmp_path / "app.py").write_text(block)
    command = [
        sys.executable,
        "-m",
        "stepwell.cli",
        "run",
        "app.py:handler",
        "--input",
        '{"amount": 10}',
        "--id",
        "order-1",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "charging 10\nsending {'charged': 10}\n\"sent\"\n"
