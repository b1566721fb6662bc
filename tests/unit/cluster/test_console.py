"""What is printed is text: a model called `llama` is no emoji, a run called `[red]` no colour, and an error is one line."""

import sys

import pytest
import typer
from rich.table import Table

from cluster.console import escape, make_console, run_app
from cluster.exits import USER_ERROR
from cluster.observe.progress import Progress
from protocol.errors import UserError

NAMES = [":llama:", "[red]x[/red]", "[bold", ":smile:"]


def table(name: str) -> Table:
    shown = Table(title=f"Plan of {name}", caption=name)
    shown.add_column(f"of {name}")
    shown.add_row(f"judge{name}")
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_names_are_never_markup_in_lines_and_tables(name: str) -> None:
    console = make_console()
    with console.capture() as captured:
        console.print(f"api{name}: judging 3 of 4 labels")
        console.print(table(name))
    printed = captured.get()
    for text in (f"api{name}: judging 3 of 4 labels", f"Plan of {name}", f"of {name}", f"judge{name}"):
        assert text in printed


@pytest.mark.parametrize("name", NAMES)
def test_nor_in_what_a_run_says_and_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.say(f"judge api{name}: answers")
        progress.console.print(table(name))
    printed = capsys.readouterr().out
    for text in (f"judge api{name}: answers", f"Plan of {name}", f"judge{name}"):
        assert text in printed


def test_a_mistake_is_one_line_whatever_it_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise UserError("seeds.train: two\nlines\x1b[31m.jsonl does not exist")

    monkeypatch.setattr(sys, "argv", ["fail"])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    assert ended.value.code == USER_ERROR
    assert capsys.readouterr().err == "advgame: seeds.train: two\\nlines\\x1b[31m.jsonl does not exist\n"


def test_letters_of_any_language_are_no_escapes() -> None:
    assert escape("straße 東京 a\tb") == "straße 東京 a\\tb"
