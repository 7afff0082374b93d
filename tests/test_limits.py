"""Code that may do anything ends in time, and leaves the process as it was."""

# ruff: noqa: SIM105, E722, PT012 - written as the careless write it

import builtins
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachelab import stage
from cachelab.process import patience
from cachelab.process.limits import PRINTED_CHARS, Left, OutOfTime, limited, run
from cachelab.process.patience import Patience, waited
from cachelab.process.redirect import Original

QUICK = 0.2  # seconds given to an answer that never ends
AT_MOST = 5.0  # seconds in which any of these must be over, on a machine however busy


def forever():
    while True:
        pass


def catches_all():
    while True:
        try:
            time.sleep(1)
        except:
            pass


def catches_all_without_a_pause():
    while True:
        try:
            pass
        except:
            pass


def catches_all_three_deep():
    while True:
        try:
            while True:
                try:
                    catches_all()
                except:
                    time.sleep(0.1)
        except:
            pass


def catches_all_twelve_deep(more=12):
    while True:
        try:
            catches_all_twelve_deep(more - 1) if more else time.sleep(1)
        except:
            pass


def sleeps():
    time.sleep(1e9)


def locks_twice():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def reads_an_endless_generator():
    return sum(1 for _ in itertools.count())


def loops_inside_a_callback_of_c():
    return sorted([3, 1, 2], key=lambda _: catches_all())


def joins_an_endless_thread():
    thread = threading.Thread(target=turns_forever)
    thread.start()
    thread.join()


def waits_in_finally():
    try:
        forever()
    finally:
        catches_all()


ENDLESS = [
    forever,
    catches_all,
    catches_all_without_a_pause,
    catches_all_three_deep,
    catches_all_twelve_deep,
    sleeps,
    locks_twice,
    reads_an_endless_generator,
    loops_inside_a_callback_of_c,
    joins_an_endless_thread,
    waits_in_finally,
]


def everything_we_touch():
    """What `run` puts something in the way of, as it is now."""
    return (
        sys.stdout,
        sys.stderr,
        sys.unraisablehook,
        threading.excepthook,
        sys.breakpointhook,
        builtins.input,
        getattr(builtins, "exit", None),
        getattr(builtins, "quit", None),
        os._exit,
        os.abort,
        os.fork,
        os.kill,
        threading.Thread.start,
        signal.getsignal(signal.SIGINT),
        sys.getswitchinterval(),
        sys.gettrace(),
    )


@pytest.fixture(autouse=True)
def _nothing_stays_patched():
    before = everything_we_touch()
    yield
    assert everything_we_touch() == before


turns = [0]


def turns_forever():
    while True:
        turns[0] += 1


def is_turning():
    """Whether a thread still runs `turns_forever`, whatever `threading` says of it."""
    before = turns[0]
    time.sleep(0.05)
    return turns[0] > before


@pytest.mark.parametrize("endless", ENDLESS, ids=lambda f: f.__name__)
def test_what_never_ends_is_stopped(endless):
    began = time.monotonic()
    ended = run(endless, seconds=QUICK)
    assert ended.how == "out of time"
    assert time.monotonic() - began < AT_MOST
    assert not is_turning()


@pytest.mark.parametrize(
    "endless",
    [forever, catches_all_without_a_pause, sleeps, locks_twice, joins_an_endless_thread],
    ids=lambda f: f.__name__,
)
def test_what_never_ends_is_given_up_in_a_thread_that_is_not_the_main_one(endless):
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        ended = pool.submit(run, endless, seconds=QUICK).result()
    assert ended.how == "out of time"
    assert time.monotonic() - began < AT_MOST
    assert not is_turning()


def test_it_says_where_the_loop_is():
    ended = run(forever, seconds=QUICK)
    assert ended.sentence("read_user").startswith(
        "read_user did not come back within 0.2 s; it was"
    )
    assert ended.where.function == "forever"


def test_finally_and_with_still_run_when_the_time_is_up():
    cleaned = []

    def answer():
        try:
            forever()
        finally:
            cleaned.append("yes")

    assert run(answer, seconds=QUICK).how == "out of time"
    assert cleaned == ["yes"]


def test_a_value_comes_back_with_what_was_printed():
    def answer(a, *, b):
        print("working")
        print("on it", file=sys.stderr)
        return a + b

    ended = run(answer, 1, b=2)
    assert (ended.how, ended.value, ended.printed) == ("returned", 3, "working\non it")
    assert ended.sentence("add") == ""


def test_megabytes_of_output_are_cut_to_the_first_lines():
    def answer():
        for number in range(200_000):
            print(f"line {number} {'x' * 20}")
        sys.stdout.buffer.write(b"bytes too")

    printed = run(answer).printed
    assert printed.startswith("line 0 ")
    assert len(printed.splitlines()) == 11
    assert printed.endswith("more characters")
    assert len(printed) < PRINTED_CHARS + 100


def test_one_endless_line_is_cut_too():
    printed = run(lambda: print("y" * 5_000_000)).printed
    assert len(printed) < PRINTED_CHARS + 100
    assert "4,999,001 more characters" in printed


def raises_in_a_library():
    return int("seven")


def recurses():
    return recurses()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            raises_in_a_library,
            "f raised ValueError: invalid literal for int() with base 10: 'seven' in line",
        ),
        (recurses, "f raised RecursionError: maximum recursion depth exceeded"),
        (lambda: {}["name"], "f raised KeyError: 'name' in line"),
        (lambda: [0] * 10**12, "f asked for more memory than there is (1 GB)"),
    ],
)
def test_an_error_is_told_with_its_place_in_their_own_code(answer, sentence):
    ended = run(answer)
    assert ended.how == "raised"
    assert ended.sentence("f").startswith(sentence)
    assert "\n" not in ended.sentence("f")
    assert ended.error.__traceback__ is None


def test_the_place_is_in_their_code_even_if_the_error_came_from_a_library():
    import json

    ended = run(lambda: json.loads("{"))
    assert "json.loads" in ended.where.text


def test_an_error_whose_text_cannot_be_had_is_told_by_its_type():
    class Rude(Exception):
        def __str__(self):
            sys.exit()

    def answer():
        raise Rude

    assert run(answer).sentence("f").startswith("f raised Rude in line")


def raises_keyboard_interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: sys.exit(0), "f called sys.exit() in line"),
        (lambda: sys.exit("bye"), "f called sys.exit() in line"),
        (lambda: builtins.exit(), "f called exit() in line"),
        (lambda: builtins.quit(3), "f called quit() in line"),
        (lambda: os._exit(0), "f called os._exit() in line"),
        (lambda: os.abort(), "f called os.abort() in line"),
        (lambda: os.fork(), "f called os.fork() in line"),
        (lambda: os.kill(os.getpid(), 9), "f called os.kill() on its own process in line"),
        (lambda: input("name? "), "f called input() in line"),
        (lambda: breakpoint(), "f called breakpoint() in line"),
        (raises_keyboard_interrupt, "f raised KeyboardInterrupt in line"),
    ],
)
def test_leaving_the_program_is_refused(answer, said):
    builtins.exit = getattr(builtins, "exit", sys.exit)
    ended = run(answer)
    assert ended.how == "left"
    assert ended.sentence("f").startswith(said)
    assert isinstance(ended.error, Left)


def test_exit_does_not_close_the_input():
    run(lambda: builtins.exit())
    assert not sys.stdin.closed


def test_a_loop_in_a_thread_that_the_answer_started_is_stopped():
    def answer():
        threading.Thread(target=turns_forever).start()
        return 1

    ended = run(answer, seconds=QUICK)
    assert ended.value == 1
    assert ended.running
    assert ended.sentence("f") == "f left a thread running that did not end within 0.2 s."
    assert not is_turning()


def test_a_thread_that_ends_in_time_is_waited_for():
    done = []

    def answer():
        threading.Thread(target=lambda: (time.sleep(0.1), done.append(1))).start()

    assert run(answer).running == ()
    assert done == [1]


def test_a_pool_kept_for_later_is_no_thread_left_running():
    pool = ThreadPoolExecutor(1)
    ended = run(lambda: pool.submit(lambda: 5).result())
    assert (ended.value, ended.running) == (5, ())
    assert pool.submit(lambda: 6).result() == 6
    pool.shutdown()


def test_threads_of_others_are_left_alone():
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    run(forever, seconds=QUICK)
    assert other.is_alive()
    stop.set()
    other.join()


def test_the_random_numbers_of_the_answer_stay_its_own():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    run(catches_all, seconds=QUICK)
    assert random.random() == expected


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX signals")
@pytest.mark.parametrize("answer", [forever, sleeps, catches_all], ids=lambda f: f.__name__)
def test_ctrl_c_by_the_user_interrupts_as_usual(answer):
    main = threading.main_thread().ident
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(answer, seconds=30)
    assert time.monotonic() - began < AT_MOST
    timer.join()


def test_limited_stops_a_block():
    began = time.monotonic()
    with pytest.raises(OutOfTime, match=r"not finished within 0.2 s"), limited(QUICK):
        forever()
    assert time.monotonic() - began < AT_MOST


def test_limited_stops_a_block_that_catches_everything_and_then_ends():
    with pytest.raises(OutOfTime), limited(QUICK):
        try:
            forever()
        except:
            pass


def test_limited_works_in_a_thread_that_is_not_the_main_one():
    def work():
        with limited(QUICK):
            forever()

    with ThreadPoolExecutor(1) as pool, pytest.raises(OutOfTime):
        pool.submit(work).result()


def test_limits_may_be_nested_and_the_outer_one_still_holds():
    began = time.monotonic()
    with pytest.raises(OutOfTime), limited(0.6):
        assert run(forever, seconds=0.2).how == "out of time"
        assert run(lambda: 5).value == 5
        forever()
    assert 0.5 < time.monotonic() - began < AT_MOST


def test_a_block_that_ends_in_time_is_not_touched():
    with limited(0.05):
        pass
    time.sleep(0.15)


def test_an_alarm_that_was_set_before_still_rings():
    rung = []
    old = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    timer = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        run(forever, seconds=0.1)
        assert signal.getsignal(signal.SIGALRM) is not old
        time.sleep(0.5)
        assert rung == [1]
    finally:
        signal.signal(signal.SIGALRM, old)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_a_hundred_runs_in_a_row_that_race_with_the_end_of_time():
    """The time is up just when the call ends: one of the two, and never an exception."""
    hows = {run(time.sleep, 0.003, seconds=0.003).how for _ in range(100)}
    assert hows <= {"returned", "out of time"}


def test_a_process_ends_although_an_answer_in_it_never_did():
    script = """
        import sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from cachelab.process.limits import run
        def stubborn():
            while True:
                try: time.sleep(1)
                except: pass
        print(run(stubborn, seconds=0.1).how)
        def asleep():
            threading.Thread(target=time.sleep, args=(1e6,)).start()
        print(run(asleep, seconds=0.1).running)
        kept = []
        def pooled():
            kept.append(ThreadPoolExecutor(1))
            kept[0].submit(time.sleep, 1e6)
        print(run(pooled, seconds=0.1).running)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "out of time"
    assert [line[:2] for line in done.stdout.splitlines()[1:]] == ["('", "('"]


# A busy machine ------------------------------------------------------------------------------


@pytest.fixture
def starved(monkeypatch):
    """A machine on which others have the CPU for 99 hundredths of the time."""
    clock = Original(time.monotonic)  # on the stage, `time.monotonic` is the stage's
    began = clock()
    monkeypatch.setattr(patience, "waited", lambda process=None: 0.99 * (clock() - began))
    monkeypatch.setattr(patience, "MOST", 50)


@pytest.mark.usefixtures("starved")
def test_time_that_other_programs_had_does_not_count():
    ended = run(lambda: time.sleep(1.5 * QUICK) or "done", seconds=QUICK)
    assert (ended.how, ended.value) == ("returned", "done")
    with limited(QUICK):
        time.sleep(1.5 * QUICK)


@pytest.mark.usefixtures("starved")
def test_patience_with_a_busy_machine_ends(monkeypatch):
    monkeypatch.setattr(patience, "MOST", 2)
    began = time.monotonic()
    assert run(forever, seconds=QUICK).how == "out of time"
    assert time.monotonic() - began >= 3 * QUICK
    monkeypatch.setattr(patience, "waited", lambda process=None: 10 * time.monotonic())
    short = Patience(0.01)
    time.sleep(0.03)
    assert short.left() <= 0


@pytest.mark.usefixtures("starved")
def test_the_stage_has_patience_too(monkeypatch):
    def works(cache, db):
        began = time.thread_time()
        while time.thread_time() - began < 1.2 * QUICK:
            pass
        return cache.set("k", "v")

    assert stage.run([works, works], wall_limit=QUICK).answers["works-1"] is True
    monkeypatch.setattr(patience, "MOST", 2)
    began = time.monotonic()
    with pytest.raises(stage.Stuck, match="did not come back"):
        stage.run([lambda cache, db: forever()], wall_limit=QUICK)
    assert time.monotonic() - began >= 3 * QUICK


def test_an_idle_answer_is_not_waited_for_longer():
    began = time.monotonic()
    assert run(lambda: time.sleep(60), seconds=QUICK).how == "out of time"
    assert time.monotonic() - began < AT_MOST


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells it")
def test_linux_tells_how_long_a_thread_waited_for_the_cpu():
    """Four programs on one CPU: each runs for a quarter of the time, and waits for the rest."""
    code = "import os; os.sched_setaffinity(0, {%d}); print(flush=True)\nwhile True: pass"
    allowed = os.sched_getaffinity(0)
    cpu = min(allowed)
    command = [sys.executable, "-c", code % cpu]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for other in others:
            other.stdout.readline()
        os.sched_setaffinity(0, {cpu})
        before, ran, began = waited(), time.thread_time(), time.monotonic()
        while time.monotonic() - began < 5 and waited() - before < 0.3:
            pass
        assert waited() - before >= 0.3
        assert time.thread_time() - ran < 0.7 * (waited() - before)
        assert waited(os.getpid()) > 0
    finally:
        os.sched_setaffinity(0, allowed)
        for other in others:
            other.kill()
            other.communicate()


def test_without_a_word_from_the_system_there_is_no_patience(monkeypatch):
    def refuses(*args, **options):
        raise OSError("no /proc here")

    monkeypatch.setattr("builtins.open", refuses)
    assert waited() == 0
