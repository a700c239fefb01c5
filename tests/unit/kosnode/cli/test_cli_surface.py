"""The command's surface: each answer is one object, each exit code is documented, help is whole (S13)."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unit.kosnode.cli.cli_node import CliNode

import kosnode
from kosnode import cli, command, errors, manpage, verbs
from kosnode.command import Result
from kosnode.errors import KosError

REPOSITORY = Path(__file__).resolve().parents[4]
RUNTIME = REPOSITORY / "runtime"
ROFF = {".TH", ".SH", ".SS", ".TP", ".PP", ".B"}


def test_every_exit_code_is_in_the_contract_and_every_line_of_it_is_an_error() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text()
    table = page[page.index("| exit | meaning |") :].split("\n\n")[0]
    documented = {int(found) for found in re.findall(r"^\| (\d+) \|", table, re.M)}
    kinds = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KosError)
    ]
    assert documented == {0} | {kind.exit_code for kind in kinds}


def test_the_contracts_verbs_are_the_parsers(bed: CliNode) -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text()
    found = re.search(r"Verbs: `([a-z ]+)`", page)
    assert found is not None
    shown = {name for name, _ in cli.leaves(cli.build_parser([]))}
    assert shown == set(found.group(1).split())


@pytest.mark.parametrize(
    "words",
    [
        ["frob"],
        ["stage", "--mirror", "http://x"],
        ["activate", "--bake-s", "-1"],
        ["lease", "--ttl-s", "x"],
        ["watch"],
    ],
)
def test_bad_arguments_get_one_answer_with_exit_2(bed: CliNode, words: list[str]) -> None:
    answered = bed.kosctl(*words)
    assert (answered["exit"], answered["error"]["kind"]) == (2, "input")


def test_an_answer_is_ascii_whatever_was_typed() -> None:
    """A name that is not UTF-8 reaches the program as lone surrogates, which no stream takes."""
    answered = command.answer("verify", lambda: Result({"ref": "\udcff…"}), status=lambda: None)
    assert answered.json().isascii()


def test_options_are_never_guessed_from_their_beginning(bed: CliNode) -> None:
    assert bed.kosctl("stage", "--allow")["exit"] == 2


def test_a_person_reads_one_line_and_no_traceback(bed: CliNode) -> None:
    code, out, err = bed.say("activate", "9.9.9")
    assert code != 0
    assert out == ""
    assert [line for line in err.splitlines() if line.startswith("error: ")] != []
    assert "Traceback" not in err


def test_what_is_unexpected_is_one_line_and_a_traceback_only_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> Result:
        raise RuntimeError("oh")

    answered = command.answer("status", work, status=lambda: None)
    assert (answered.exit, answered.envelope["error"]["kind"]) == (1, "internal")
    assert "RuntimeError: oh" in answered.envelope["error"]["message"]
    assert "Traceback" not in capsys.readouterr().err
    command.answer("status", work, status=lambda: None, debug=True)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (command.Terminated(), 143), (OSError(28, "No space left on device"), 7)],
)
def test_signals_and_a_full_disk_have_exit_codes(error: BaseException, code: int) -> None:
    def work() -> Result:
        raise error

    assert command.answer("stage", work, status=lambda: None).exit == code


def test_a_status_that_cannot_be_told_does_not_hide_the_answer(bed: CliNode) -> None:
    bed.paths.refusals.write_text("{")
    answered = bed.kosctl("units")
    assert answered["ok"]
    assert answered["status"] is None


def test_a_damaged_list_of_units_is_named_and_hides_no_answer(bed: CliNode) -> None:
    bed.paths.node_units.mkdir()
    (bed.paths.node_units / "units.json").write_text('{"units":{"a":1}}')
    answered = bed.kosctl("units")
    assert (answered["exit"], answered["status"]) == (10, None)
    assert "is no list of units" in answered["error"]["message"]
    assert bed.kosctl("refusals")["ok"]


def test_whatever_goes_wrong_with_the_status_the_answer_comes() -> None:
    def broken() -> None:
        raise TypeError

    assert command.answer("confirm", Result, status=broken).exit == 0


def test_a_node_without_configuration_still_says_what_it_runs(bed: CliNode) -> None:
    bed.paths.node_json.unlink()
    status = bed.kosctl("status")
    assert status["ok"]
    assert status["result"]["node"]["name"] is None
    staged = bed.kosctl("stage")
    assert (staged["exit"], "bootstrap" in staged["error"]["message"]) == (2, True)


def test_status_is_readable(bed: CliNode) -> None:
    bed.publish("1.0.0")
    bed.install("1.0.0")
    _, out, _ = bed.say("status")
    assert re.search(r"^node +n1, fleet demo, zone a", out)
    assert re.search(r"^state +CONFIRMED$", out, re.M)
    assert re.search(r"^current +kos 1\.0\.0  [0-9a-f]{12}$", out, re.M)


def test_a_table_is_as_wide_as_its_words() -> None:
    assert verbs.table(["a", "long head"], [["wide cell", "x"]]) == "a          long head\nwide cell  x"


def test_every_verb_and_option_has_help_and_stands_in_the_man_page() -> None:
    parser = cli.build_parser()
    page = manpage.page(parser)
    for name, sub in cli.leaves(parser):
        assert sub.description or not sub.prog.endswith(name.split()[-1]) or " " in name or name == "repo", (
            name
        )
        assert f'.SS "{name}"'.replace("-", "\\-") in page
        for action in sub._actions:
            if isinstance(action, argparse._SubParsersAction):
                continue
            for option in action.option_strings:
                assert option.replace("-", "\\-") in page


def test_the_man_page_has_only_macros_of_man() -> None:
    page = manpage.page(cli.build_parser())
    macros = {line.split()[0] for line in page.splitlines() if line.startswith(".")}
    assert macros == ROFF
    assert not [line for line in page.splitlines() if line.startswith("'")]


def test_completion_is_valid_bash_and_completes_verbs_and_options() -> None:
    bash = shutil.which("bash")
    assert bash is not None, "bash is not installed"
    script = cli.bash_completion(cli.build_parser())

    def completed(*words: str) -> list[str]:
        asked = " ".join(f"'{word}'" for word in ("kosctl", *words))
        call = f'COMP_WORDS=({asked}); COMP_CWORD={len(words)}; _kosctl; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run([bash, "-c", f"{script}\n{call}"], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("acti") == ["activate"]
    assert completed("activate", "--dead") == ["--deadline-s"]
    assert completed("repo", "key", "n") == ["new"]


def test_the_command_starts_in_isolated_mode() -> None:
    start = f"import sys; sys.path.insert(0, {str(RUNTIME)!r})"
    code = f"{start}; from kosnode.cli import main; sys.exit(main(['--version']))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"kosctl {kosnode.__version__}")


@pytest.mark.parametrize("words", [["manual"], ["completion", "bash"]])
def test_hidden_verbs_print_what_they_make(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert cli.main(words) == 0
    assert "kosctl" in capsys.readouterr().out
