"""Changes the library in one small place at a time and counts the changes that no test notices.

    make mutation                                            every room, 60 mutants each
    make mutation ARGS="models --size 90 --seed 7"           one room, more of them, another draw
    make mutation ARGS="models --again .cachelab/mutation"   only those that survived last time

The operators are cosmic-ray's, thinned to one sensible replacement each, and two of our own: a
statement left out, a value not returned. What is changed is a copy of the tree; each mutant meets
only the tests of its module, one process at a time, and the first failure ends it. A mutant that
outlives its time limit is counted apart. Results are appended to FOLDER/ROOM-SEED.jsonl as they
come, so a run that is broken off, or is asked for more, goes on where it was; those of a source
that has changed since count no more. docs/mutation.md holds the figures and the survivors.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

try:
    import parso
    from cosmic_ray import plugins
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import MutationVisitor
    from cosmic_ray.operators.operator import Operator
except ImportError:
    sys.exit(
        "make mutation needs cosmic-ray 8.7 or newer: .venv/bin/python -m pip install cosmic-ray"
    )

ROOT = Path(__file__).resolve().parents[2]
SEED, SIZE = 8, 60
PYTEST = [
    *("-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:nbval", "-p", "no:valkey"),
    *("-p", "no:xdist", "-p", "no:cacheprovider", "--no-header", "--tb=line"),
]
STAGE = ["test_stage_replay.py test_stage_run.py test_stage_explore.py test_stage_hostile.py"]
TRIAL = ["test_exercises_staged.py test_exercises.py"]
# The contract of two labs stands for all: one on the stage, one without it.
CONTRACT = ["test_exercises_contract.py -k '05_cache_aside or 02_in_memory'"]
STALE, STAMPEDE = ["test_patterns_stale.py"], ["test_patterns_stampede.py"]
MODELS = sorted(path.stem for path in (ROOT / "src/cachelab/models").glob("[a-z]*.py"))
BACK = ["test_patterns_write_back.py test_write_back_crashes.py"]
EVENTS, BUILDER = ["test_patterns_invalidation.py"], ["test_builder_markers.py test_builder.py"]

# Room: its folder, and for each module the runs of pytest that it must get past, in this order.
# Three labs' judges stand for all; modules that only npm or Sphinx would run (tools/slides.py,
# tools/site.py) are left out.
ROOMS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "models": (
        "src/cachelab/models",
        {name: [f"test_models_{name}.py test_models_inputs.py"] for name in MODELS}
        | {"inputs": ["test_models_inputs.py test_models_ttl.py test_models_stampede.py"]},
    ),
    "stage": (
        "src/cachelab/stage",
        dict.fromkeys(
            ("database", "faults", "patches", "replay", "scheduler", "store", "sync", "world"),
            STAGE,
        )
        | {"search": ["test_stage_explore.py test_stage_replay.py", *STAGE]},
    ),
    "patterns": (
        "src/cachelab/patterns",
        {
            "cache_aside": [
                "test_patterns.py test_patterns_stale.py test_patterns_read_through.py"
            ],
            "early_refresh": STAMPEDE,
            "jitter": STAMPEDE,
            "lease": STALE,
            "local_cache": ["test_patterns_local_cache.py"],
            "outbox": EVENTS,
            "production": ["test_production.py"],
            "read_many": ["test_patterns_read_many.py"],
            "read_through": ["test_patterns_read_through.py"],
            "single_flight": ["test_patterns_stampede.py test_patterns_read_through.py"],
            "stale_while_revalidate": STAMPEDE,
            "stream_consumer": EVENTS,
            "tags": EVENTS,
            "token_lock": STAMPEDE,
            "versioned_set": STALE,
            "write_back": BACK,
            "write_back_stream": BACK,
            "write_through": ["test_patterns_write_through.py"],
        },
    ),
    "tools": (
        "tools",
        {
            "build": BUILDER,
            "judge": ["test_judge.py"],
            "links": ["test_links.py"],
            "markers": BUILDER,
            "nbval_live": ["test_builder_nbval.py"],
            "notebook": [*BUILDER, "test_links.py test_builder_nbval.py"],
            "setup_venv": ["test_bootstrap.py"],
            "warm_kernel": ["test_builder_nbval.py"],
        },
    ),
    "exercises": (
        "src/cachelab/exercises",
        {
            "__init__": [*TRIAL, *CONTRACT],
        },
    ),
    "judge": (
        "src/cachelab/judge",
        {name: [*TRIAL, *CONTRACT] for name in ("exercise", "trial", "world")},
    ),
    "submission": (
        "src/cachelab/submission",
        {
            "fence": [*TRIAL, "test_cli_submissions.py", *CONTRACT],
            "notebook": ["test_cli_submissions.py", "test_cli.py"],
        },
    ),
    "judges": (
        "src/cachelab/exercises",
        {
            "lab_02_in_memory": ["test_exercises_contract.py -k 02_in_memory"],
            "lab_05_cache_aside": ["test_exercises_contract.py -k 05_cache_aside"],
            "lab_10_stampede": ["test_exercises_contract.py -k 10_stampede"],
        },
    ),
}

REPLACED = {
    "BinaryOperator": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitOr_BitAnd "
    "BitAnd_BitOr BitXor_BitAnd LShift_RShift RShift_LShift",
    "ComparisonOperator": "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Is_IsNot IsNot_Is",
    "UnaryOperator": "Delete_Not Delete_USub Delete_Invert",
}
OPERATORS = [
    *("AddNot", "ExceptionReplacer", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *(f"Replace{kind}_{pair}" for kind, pairs in REPLACED.items() for pair in pairs.split()),
]


class StatementLeftOut(Operator):  # type: ignore[misc]
    """A call, or an assignment to what was there before (`self.x = 1`, `x += 1`), becomes `pass`.

    Without a new name's first assignment the next line fails: that tells nothing about the tests.
    """

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "simple_stmt":
            first = node.children[0]
            called = first.type in {"atom_expr", "power"} and first.children[-1].type == "trailer"
            kept = first.type == "expr_stmt" and first.children[1].type != "annassign"
            fresh = kept and first.children[0].type == "name" and first.children[1].value == "="
            if called or (kept and not fresh):
                yield first.start_pos, first.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        gone = node.children[0]
        node.children[0] = parso.parse("pass")
        node.children[0].children[0].prefix = gone.get_first_leaf().prefix
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


class NothingReturned(Operator):  # type: ignore[misc]
    """`return x` becomes `return None`."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        nothing = {"None", "False"}  # most callers ask only whether it is true
        if node.type == "return_stmt" and node.children[1].get_code().strip() not in nothing:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children[1] = parso.parse(" None")
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


@dataclass(frozen=True)
class Mutant:
    """One change: which operator, at which of the places of `module` that it could change.

    source: what the module's text was, in short; a changed source has other mutants.
    """

    module: str
    source: str
    operator: str
    occurrence: int


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "killed", "timed out" or "survived", and the changed lines."""

    mutant: Mutant
    outcome: str
    seconds: float
    line: int
    change: str


def operator(name: str) -> Any:
    """The operator of that name, ready to use."""
    ours = {kind.__name__: kind for kind in (StatementLeftOut, NothingReturned)}
    return ours[name]() if name in ours else plugins.get_operator(f"core/{name}")()


def is_annotation(node: Any, child: Any) -> bool:
    """Whether `child` is only read by a type checker: `x: int | None`, `-> str | None`."""
    if node.type in {"annassign", "tfpdef"}:
        return child is node.children[1]
    if node.type == "param":
        return child.type not in {"operator", "tfpdef"} and child is node.annotation
    return node.type == "funcdef" and child is node.annotation


def nodes(node: Any, silent: bool = False) -> Iterator[tuple[Any, bool]]:
    """Each node in cosmic-ray's order, and whether a change of it could be seen when it runs."""
    yield node, not silent
    for child in getattr(node, "children", []):
        yield from nodes(child, silent or is_annotation(node, child))


def mutants_of(path: Path, module: str) -> list[Mutant]:
    """Every mutant that the operators make of one source, in the order of the source."""
    seen: Counter[str] = Counter()
    found = []
    source = path.read_text()
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    ready = {name: operator(name) for name in [*OPERATORS, "StatementLeftOut", "NothingReturned"]}
    for node, counts in nodes(get_ast(source)):
        for name, made in ready.items():
            for _ in made.mutation_positions(node):
                if counts:
                    found.append(Mutant(module, digest, name, seen[name]))
                seen[name] += 1
    return found


def changed(source: str, mutant: Mutant) -> str | None:
    """The source with the change in it; None where it changes nothing or is no Python."""
    text = MutationVisitor.mutate_code(source, operator(mutant.operator), mutant.occurrence)
    if text is not None and text.count("/,") > source.count("/,"):
        return None  # the mark of keyword-only arguments, which cosmic-ray takes for a product
    try:
        same = text is None or compile(text, "", "exec") == compile(source, "", "exec")
    except SyntaxError:
        return None
    return None if same else str(text)


def shown(before: str, after: str) -> tuple[int, str]:
    """The first changed line's number, and the changed lines as `- old` and `+ new`."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))
    number = int(lines[2].split()[1].lstrip("-").split(",")[0])
    return number, "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines[3:])


def copy_of_the_tree(into: Path) -> None:
    """What git knows of, and what is new and not ignored."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)


def tested(tree: Path, runs: list[str], limit: float) -> str:
    """What the tests say of the tree as it stands: "survived", "killed" or "timed out"."""
    end = time.monotonic() + limit
    settings = {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    for run in runs:
        files, _, chosen = run.partition(" -k ")
        command = [sys.executable, *PYTEST, f"--basetemp={tree.parent}/tests"]
        command += [f"tests/{name}" for name in files.split()]
        command += ["-k", chosen.strip("'")] if chosen else []
        with (tree.parent / "said").open("wb") as said:
            process = subprocess.Popen(
                command,
                cwd=tree,
                env=os.environ | settings,
                stdout=said,
                stderr=said,
                start_new_session=True,  # so that what it started ends with it
            )
        try:
            code = process.wait(max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code:
            return "killed"
    return "survived"


def interval(part: int, whole: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22, 209)."""
    z, share = 1.96, part / whole
    middle = share + z * z / (2 * whole)
    half = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return (middle - half) / (1 + z * z / whole), (middle + half) / (1 + z * z / whole)


def read(results: Path) -> list[Outcome]:
    """What was found out so far."""
    if not results.exists():
        return []
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return [Outcome(**(row | {"mutant": Mutant(**row["mutant"])})) for row in rows]


def summary(room: str, places: int, outcomes: list[Outcome]) -> str:
    """One line: the score, its interval, and what it is made of."""
    count = Counter(outcome.outcome for outcome in outcomes)
    noticed, low, high = count["killed"] + count["timed out"], 0.0, 1.0
    if outcomes:
        low, high = interval(noticed, len(outcomes))
    return (
        f"{room}: {noticed} of {len(outcomes)} noticed ({noticed / max(len(outcomes), 1):.0%}, "
        f"95 % interval {low:.0%} to {high:.0%}), {count['timed out']} of them by the time limit; "
        f"{count['survived']} survived; drawn from {places}"
    )


def mutate(room: str, size: int, seed: int, results: Path, only: set[Mutant] | None) -> None:
    """Draws mutants of a room, tests each, and prints those that survive and the score."""
    folder, modules = ROOMS[room]
    every = [
        mutant
        for module in sorted(modules)
        for mutant in mutants_of(ROOT / folder / f"{module}.py", module)
    ]
    done = {outcome.mutant: outcome for outcome in read(results)}
    drawn = random.Random(f"{seed}:{room}").sample(every, len(every))
    drawn = [mutant for mutant in drawn if only is None or mutant in only]
    with tempfile.TemporaryDirectory(prefix="cachelab-mutation-") as work:
        tree = Path(work) / "tree"
        copy_of_the_tree(tree)
        limits: dict[str, float] = {}
        outcomes: list[Outcome] = []
        for mutant in drawn:
            if len(outcomes) == size:
                break
            if mutant in done:
                outcomes.append(done[mutant])
                continue
            path = tree / folder / f"{mutant.module}.py"
            source = path.read_text()
            after = changed(source, mutant)
            if after is None:
                continue
            runs = modules[mutant.module]
            if str(runs) not in limits:
                began = time.monotonic()
                if tested(tree, runs, 600) != "survived":
                    print("\n".join((tree.parent / "said").read_text().splitlines()[-5:]))
                    sys.exit(f"{room}: {' and '.join(runs)} fails before anything is changed.")
                limits[str(runs)] = 3 * (time.monotonic() - began) + 15
            began = time.monotonic()
            path.write_text(after)
            try:
                said = tested(tree, runs, limits[str(runs)])
            finally:
                path.write_text(source)
            line, change = shown(source, after)
            outcome = Outcome(mutant, said, round(time.monotonic() - began, 1), line, change)
            outcomes.append(outcome)
            with results.open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            if said == "survived":
                print(f"{folder}/{mutant.module}.py:{line} {mutant.operator}\n{change}", flush=True)
    print(summary(room, len(every), outcomes), flush=True)


def main() -> None:
    """Rooms in the order given, or all."""
    parser = argparse.ArgumentParser(prog="make mutation", description=str(__doc__).split("\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=", ".join(ROOMS))
    parser.add_argument("--size", type=int, default=SIZE, help=f"mutants a room ({SIZE})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"which are drawn ({SEED})")
    parser.add_argument(
        "--out", type=Path, default=ROOT / ".cachelab" / "mutation", metavar="FOLDER"
    )
    parser.add_argument("--again", type=Path, metavar="FOLDER", help="test its survivors again")
    given = parser.parse_args()
    unknown = [room for room in given.rooms if room not in ROOMS]
    if unknown:
        parser.error(f"there is no room {unknown[0]!r}; choose from {', '.join(ROOMS)}")
    os.nice(10)
    # A shell's background job ignores Ctrl-C, and would hand that on to tests that need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for room in given.rooms or ROOMS:
        only = None
        name = f"{room}-{given.seed}"
        if given.again:
            earlier = read(given.again / f"{name}.jsonl")
            only = {outcome.mutant for outcome in earlier if outcome.outcome == "survived"}
            name += "-again"
            (given.out / f"{name}.jsonl").unlink(missing_ok=True)
        given.out.mkdir(parents=True, exist_ok=True)
        mutate(room, given.size, given.seed, given.out / f"{name}.jsonl", only)


if __name__ == "__main__":
    main()
