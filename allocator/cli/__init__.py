"""The `allocator` command: one verb, one file; this one registers them and turns errors into exit codes.

0 ok, 1 error, 2 usage, 3 infeasible, 4 no allocation found within the limit, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from allocator.cli.applying import apply_command, evaluate_command
from allocator.cli.checking import check_command
from allocator.cli.comparing import compare_command
from allocator.cli.console import warnings_in_words
from allocator.cli.contending import compare_methods_command
from allocator.cli.converting import convert_command
from allocator.cli.demonstrating import demo_command
from allocator.cli.diagnosing import doctor_command
from allocator.cli.differing import diff_command
from allocator.cli.explaining import explain_command
from allocator.cli.fronting import frontier_command
from allocator.cli.judging import fidelity_command
from allocator.cli.listing import actions_command, profilers_command, schema_command, solvers_command
from allocator.cli.profiling import profile_command
from allocator.cli.recovering import recover_command
from allocator.cli.refining import refine_command
from allocator.cli.running import methods_command, run_command
from allocator.cli.solving import solve_command
from allocator.cli.stabilising import stability_command
from allocator.cli.studying import study_command

app = typer.Typer(
    name="allocator",
    help="Choose a bit-width, rank or format per layer: optimal under a budget, with a checked proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(check_command)
app.command("solve")(solve_command)
app.command("compare")(compare_command)
app.command("frontier")(frontier_command)
app.command("explain")(explain_command)
app.command("stability")(stability_command)
app.command("convert")(convert_command)
app.command("profile")(profile_command)
app.command("fidelity")(fidelity_command)
app.command("study")(study_command)
app.command("refine")(refine_command)
app.command("run")(run_command)
app.command("compare-methods")(compare_methods_command)
app.command("apply")(apply_command)
app.command("recover")(recover_command)
app.command("evaluate")(evaluate_command)
app.command("solvers")(solvers_command)
app.command("profilers")(profilers_command)
app.command("methods")(methods_command)
app.command("actions")(actions_command)
app.command("schema")(schema_command)
app.command("demo")(demo_command)
app.command("diff")(diff_command)
app.command("doctor")(doctor_command)


def _version(wanted: bool) -> None:
    if wanted:
        from allocator import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Choose a bit-width, rank or format per layer: optimal under a budget, with a checked proof."""


def main() -> None:
    """Run the command line; every foreseeable failure is one message on stderr and an exit code."""
    from allocator.errors import AllocatorError, UsageError

    try:
        with warnings_in_words():
            app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except AllocatorError as error:
        print(f"allocator: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        from allocator.registry import DISTRIBUTION, EXTRAS

        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        print(f"allocator: this needs {missing!r}; pip install '{DISTRIBUTION}[{EXTRAS[missing]}]'", file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("allocator: out of memory; use the columns form, or a smaller problem", file=sys.stderr)
        sys.exit(1)
