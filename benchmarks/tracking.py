"""What tracking costs and what a crash takes with it: ours beside the tools used directly.

``python benchmarks/tracking.py [section ...]``; sections are `calls`, `points`, `wandb`, `reads`,
`kills`, and all of them if none is named (some minutes). Ours and the peer take turns in one run;
medians, CPU seconds and ratios are printed, with the ratio that we hold ourselves to. `wandb` and
`trackio` take part where they are installed.
"""

from __future__ import annotations

import gc
import importlib.util
import random
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlopskit.kit import Kit
from mlopskit.tracking.entities import Batch, Ended, MetricsLogged, ParamsLogged, Started

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
NOWHERE = "mlflow:http://127.0.0.1:9"
HAS = {name: importlib.util.find_spec(name) is not None for name in ("wandb", "trackio")}


def main() -> None:
    """Run the sections that are asked for."""
    asked = sys.argv[1:] or list(SECTIONS)
    for name in asked:
        print(f"\n-- {name}: {SECTIONS[name].__doc__}")
        with tempfile.TemporaryDirectory(prefix="mlopskit-bench-") as folder:
            SECTIONS[name](Path(folder))


def calls(folder: Path) -> None:
    """The caller's time of one `log_metrics` with 3 metrics, in microseconds."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(f"sqlite:///{folder}/m.db")
    experiment = client.create_experiment("calls", (folder / "artifacts").as_uri())

    def native(count: int) -> list[int]:
        run = client.create_run(experiment).info.run_id

        def log(values: dict[str, float], step: int) -> None:
            now = time.time_ns() // 1_000_000
            client.log_batch(run, [Metric(key, value, now, step) for key, value in values.items()])

        return [timed(log, point(step), step) for step in range(count)]

    def ours(line: Any, count: int) -> list[int]:
        with Kit(tracking=line, home=folder / "home") as kit:
            run = kit.tracker.start_run("calls")
            each = [timed(run.log_metrics, point(step), step) for step in range(count)]
            run.finish(timeout_s=0)
            return each

    ways: dict[str, Callable[[], list[int]]] = {
        "mlopskit local": lambda: ours("local", 100_000),
        "mlopskit mlflow": lambda: ours(f"mlflow:sqlite:///{folder}/m.db", 20_000),
        "mlopskit mlflow, server down": lambda: ours(NOWHERE, 20_000),
        "MlflowClient.log_batch": lambda: native(200),
    }
    if HAS["wandb"]:
        line = {"backend": "wandb", "mode": "offline", "folder": str(folder / "wandb")}
        down = {"backend": "wandb", "base_url": "http://127.0.0.1:9", "api_key": "0" * 40}
        ways["mlopskit wandb, offline"] = lambda: ours(line, 20_000)
        ways["mlopskit wandb, server down"] = lambda: ours(down, 20_000)
        ways["wandb offline, run.log"] = lambda: wandb_calls(folder, 3_000)
    seen: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seen[name] += way()
    print(f"{'':32}{'p50':>10}{'p99':>10}{'p99.9':>10}")
    for name, each in seen.items():
        each.sort()
        p50, p99, p999 = (each[int(len(each) * part)] / 1000 for part in (0.5, 0.99, 0.999))
        print(f"{name:32}{p50:>10.1f}{p99:>10.1f}{p999:>10.1f}")
    ours_only = [each for name, each in seen.items() if name.startswith("mlopskit")]
    verdict("slowest p50 of ours, us", max(e[len(e) // 2] for e in ours_only) / 1000, most=10)
    verdict(
        "slowest p99 of ours, us", max(e[int(len(e) * 0.99)] for e in ours_only) / 1000, most=100
    )


def points(folder: Path) -> None:
    """Points a second, from the first call to the last point stored."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    uri = f"sqlite:///{folder}/m.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("points", (folder / "artifacts").as_uri())

    def ours(line: str, count: int) -> float:
        with Kit(tracking=line, home=folder / "home") as kit:
            kit.tracker.ping()
            begun = time.perf_counter()
            run = kit.tracker.start_run("points")
            for step in range(count // 3):
                run.log_metrics(point(step), step=step)
            run.flush(timeout_s=600)
            took = time.perf_counter() - begun
            assert all(not each.pending for each in run.delivery.values())
            run.finish(timeout_s=600)
        return count / took

    def one_by_one(count: int) -> float:
        begun = time.perf_counter()
        run = client.create_run(experiment).info.run_id
        for step in range(count // 3):
            for key, value in point(step).items():
                client.log_metric(run, key, value, step=step)
        return count / (time.perf_counter() - begun)

    def in_batches(count: int) -> float:
        begun = time.perf_counter()
        run = client.create_run(experiment).info.run_id
        rows: list[Metric] = []
        for step in range(count // 3):
            now = time.time_ns() // 1_000_000
            rows += [Metric(key, value, now, step) for key, value in point(step).items()]
            if len(rows) >= 999:
                client.log_batch(run, rows)
                rows = []
        client.log_batch(run, rows)
        return count / (time.perf_counter() - begun)

    ways = {
        "mlopskit local": lambda: ours("local", 600_000),
        "mlopskit mlflow": lambda: ours(f"mlflow:{uri}", 30_000),
        "MlflowClient.log_batch of 999": lambda: in_batches(30_000),
        "MlflowClient.log_metric": lambda: one_by_one(300),
    }
    # The last ratio is near 1: it takes many rounds, and each is compared with its neighbour.
    seen = rounds(ways, 9)
    table(seen, "points/s")
    local, mlflow, batch, single = seen.values()
    verdict("local, points/s", statistics.median(local), least=100_000)
    for name, theirs, least in (("log_metric", single, 25), ("log_batch of 999", batch, 1)):
        ratios = [one / other for one, other in zip(mlflow, theirs, strict=True)]
        verdict(f"mlflow: times {name}", statistics.median(ratios), least=least)


def wandb(folder: Path) -> None:
    """CPU seconds of 20,000 rows of 3 metrics into W&B's offline files, all processes counted."""
    if not HAS["wandb"]:
        print("wandb is not installed")
        return

    def cpu(code: str) -> float:
        script = WANDB + code
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", script, tempfile.mkdtemp(dir=folder)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    ways = {
        "mlopskit wandb": lambda: cpu(WANDB_OURS),
        "wandb run.log": lambda: cpu(WANDB_NATIVE),
        "(starting both and logging nothing)": lambda: cpu("import wandb\n" + WANDB_EMPTY),
    }
    seen = rounds(ways)
    table(seen, "CPU s")
    ours, native, _ = (statistics.median(each) for each in seen.values())
    verdict("CPU: times native run.log", ours / native, most=1.15)


def reads(folder: Path) -> None:
    """Milliseconds to read a history of 100,000 points, and to filter 10,000 runs."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder}/m.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("reads", (folder / "artifacts").as_uri())
    with Kit(tracking="local", home=folder / "home") as kit:
        tracker = kit.tracker
        fill_ours(tracker)
        history = fill_theirs(folder / "m.db", client, experiment)
        low = "metrics.m1 < 0.001"

        def best() -> Any:
            return tracker.search_runs("metrics.m1 < 0.5", order_by="metrics.m1", limit=10)

        def their_best() -> Any:
            return client.search_runs(
                [experiment], "metrics.m1 < 0.5", order_by=["metrics.m1 ASC"], max_results=10
            )

        ways: dict[str, Callable[[], Any]] = {
            "history, mlopskit": lambda: tracker.get_metric_history("f" * 32, "loss"),
            "history, MLflow": lambda: client.get_metric_history(history, "loss"),
            "filter, mlopskit": lambda: tracker.search_runs(low, limit=None),
            "filter, MLflow": lambda: client.search_runs([experiment], low, max_results=50_000),
            "best ten, mlopskit": best,
            "best ten, MLflow": their_best,
        }
        sizes = {name: len(way()) for name, way in ways.items()}
        seen: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(5):
            for name, way in ways.items():
                # Several at once, as a page of plots asks: the first one finds cold caches.
                seen[name] += [timed(way) / 1e6 for _ in range(15 if "filter" in name else 1)]
    assert len({sizes[name] for name in sizes if name.startswith("history")}) == 1, sizes
    assert len({sizes[name] for name in sizes if name.startswith("filter")}) == 1, sizes
    table(seen, "ms")
    middle = {name: statistics.median(each) for name, each in seen.items()}
    for what, least in (("history", 30), ("filter", 50), ("best ten", 50)):
        ratio = middle[f"{what}, MLflow"] / middle[f"{what}, mlopskit"]
        verdict(f"{what}: times faster than MLflow", ratio, least=least)


def kills(folder: Path) -> None:
    """Acknowledged points that a kill -9 takes with it, after a second or so of logging."""
    ways = {"mlopskit local": ("ours", "ours"), "MLflow, asynchronous": ("mlflow", "mlflow")}
    if HAS["wandb"]:
        ways["mlopskit wandb, offline"] = ("ours_wandb", "ours_wandb")
        ways["wandb offline"] = ("wandb", "ours_wandb")
    if HAS["trackio"]:
        ways["trackio"] = ("trackio", "trackio")
    lost: dict[str, list[int]] = {name: [] for name in ways}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (program, reader) in ways.items():
            home = Path(tempfile.mkdtemp(dir=folder))
            acknowledged = killed(KILLED[program], home)
            there = int(
                subprocess.run(
                    [sys.executable, "-c", READING[reader], str(home)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()[-1]
            )
            lost[name].append(max(acknowledged - there, 0))
            shares[name].append(100 * max(acknowledged - there, 0) / max(acknowledged, 1))
    print(f"{'':32}{'lost':>10}{'% lost':>10}")
    for name in ways:
        print(
            f"{name:32}{statistics.median(lost[name]):>10.0f}{statistics.median(shares[name]):>10.1f}"
        )
    verdict("lost by ours", max(max(lost[n]) for n in ways if n.startswith("mlopskit")), most=0)


def killed(program: str, home: Path) -> int:
    """Run a program that logs, kill it, and return how many points it said were logged."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=home,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
    time.sleep(1.0)  # What helpers of the tool still write may count.
    return int(said[-1]) + 1 if said else 0


def fill_ours(tracker: Any) -> None:
    """Make 10,000 runs with 5 metrics and 5 params, and one with 100,000 points."""
    chance = random.Random(0)
    for number in range(10_000):
        own = f"{number:032x}"
        records = (
            Started(1, 1000 + number, f"r{number}", "reads", None, ""),
            ParamsLogged(2, 1000, {f"p{i}": chance.random() for i in range(5)}, overwrite=False),
            MetricsLogged(3, 1000, 0, {f"m{i}": chance.random() for i in range(5)}),
            Ended(4, 2000, "finished", ""),
        )
        tracker.write(Batch(own, own, records))
    start = Started(1, 1, "long", "long", None, "")
    steps = [MetricsLogged(2 + step, step, step, {"loss": step * 0.5}) for step in range(100_000)]
    tracker.write(Batch("f" * 32, "long", (start, *steps)))


def fill_theirs(path: Path, client: Any, experiment: str) -> str:
    """Make the same in MLflow's database, by copies of its own rows; return the long run."""
    chance = random.Random(0)
    model = client.create_run(experiment, run_name="model")
    for i in range(5):
        client.log_param(model.info.run_id, f"p{i}", "0.5")
        client.log_metric(model.info.run_id, f"m{i}", 0.5)
    long = client.create_run(experiment).info.run_id
    client.log_metric(long, "loss", 0.0)
    with closing(sqlite3.connect(path)) as database, database:
        database.row_factory = sqlite3.Row
        rows = {
            table: [
                dict(row)
                for row in database.execute(
                    f"select * from {table} where run_uuid = ?", (model.info.run_id,)
                )
            ]
            for table in ("runs", "params", "metrics", "latest_metrics", "tags")
        }
        made: dict[str, list[dict[str, Any]]] = {table: [] for table in rows}
        for number in range(10_000):
            params = [chance.random() for _ in range(5)]
            metrics = [chance.random() for _ in range(5)]
            for table, some in rows.items():
                for row in some:
                    new = {**row, "run_uuid": f"{number:032x}"}
                    if table == "params":
                        new["value"] = repr(params[int(row["key"][1:])])
                    elif "metrics" in table:
                        new["value"] = metrics[int(row["key"][1:])]
                    made[table].append(new)
        for table, some in made.items():
            marks = ", ".join(f":{column}" for column in some[0])
            database.executemany(
                f"insert into {table} ({', '.join(some[0])}) values ({marks})", some
            )
        metric = dict(
            database.execute("select * from metrics where run_uuid = ?", (long,)).fetchone()
        )
        database.execute("delete from metrics where run_uuid = ?", (long,))
        marks = ", ".join(f":{column}" for column in metric)
        database.executemany(
            f"insert into metrics ({', '.join(metric)}) values ({marks})",
            [
                {**metric, "step": step, "timestamp": step, "value": step * 0.5}
                for step in range(100_000)
            ],
        )
        database.execute("delete from runs where run_uuid = ?", (model.info.run_id,))
    return str(long)


def wandb_calls(folder: Path, count: int) -> list[int]:
    """Time W&B's own calls, offline."""
    import wandb as sdk

    run = sdk.init(
        mode="offline",
        project="bench",
        dir=str(folder),
        reinit="create_new",
        settings=sdk.Settings(console="off", silent=True),
    )
    each = [timed(run.log, point(step)) for step in range(count)]
    run.finish()
    return each


def point(step: int) -> dict[str, float]:
    """Return three metrics."""
    return {"loss": step * 0.1, "accuracy": 0.5, "rate": 1e-3}


def timed(call: Callable[..., object], *given: object) -> int:
    """Return how many nanoseconds a call takes."""
    begun = time.perf_counter_ns()
    call(*given)
    return time.perf_counter_ns() - begun


def rounds(ways: dict[str, Callable[[], float]], count: int = ROUNDS) -> dict[str, list[float]]:
    """Let every way have its turn, several times."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            gc.collect()  # A collection of what one way left is not the next one's time.
            seen[name].append(way())
    return seen


def table(seen: dict[str, list[float]], unit: str) -> None:
    """Print the median of each way."""
    print(f"{'':40}{unit:>12}")
    for name, each in seen.items():
        print(f"{name:40}{statistics.median(each):>12,.2f}")


def verdict(
    what: str, found: float, *, least: float | None = None, most: float | None = None
) -> None:
    """Print a figure beside the one that we hold ourselves to."""
    met = found >= least if least is not None else found <= (most or 0)
    bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
    print(f"{what:48}{found:>12,.2f}   {bound:18}{'met' if met else 'MISSED'}")


WANDB = """
import os, sys
folder = sys.argv[1]
rows = [{"loss": step * 0.1, "accuracy": 0.5, "rate": 1e-3} for step in range(20000)]
"""
WANDB_OURS = """
import mlopskit
line = {"backend": "wandb", "mode": "offline", "folder": folder, "flush_timeout_s": 300}
with mlopskit.Kit(tracking=line, home=folder) as kit:
    with kit.tracker.start_run("bench") as run:
        for step, row in enumerate(rows):
            run.log_metrics(row, step=step)
"""
WANDB_NATIVE = """
import wandb
run = wandb.init(mode="offline", project="bench", dir=folder,
                 settings=wandb.Settings(console="off", silent=True))
for step, row in enumerate(rows):
    run.log(row)
run.finish()
"""
WANDB_EMPTY = """
run = wandb.init(mode="offline", project="bench", dir=folder,
                 settings=wandb.Settings(console="off", silent=True))
run.finish()
"""
SAYING = """
import os, sys
def say(step):
    os.write(1, b"%d\\n" % step)
home = sys.argv[1]
"""
OURS = """
import mlopskit
kit = mlopskit.Kit(tracking=LINE, home=home)
run = kit.tracker.start_run("bench")
say(-1)
for step in range(10**9):
    run.log_metrics({"loss": step * 0.5}, step=step)
    say(step)
"""
READ_OURS = """
import sys, mlopskit
home = sys.argv[1]
with mlopskit.Kit(tracking=LINE, home=home) as kit:
    kit.tracker.sync()
    (run,) = kit.tracker.search_runs()
    print(len(kit.tracker.get_metric_history(run.id, "loss")))
"""
LINE_WANDB = '{"backend": "wandb", "mode": "offline", "folder": home, "flush_timeout_s": 120}'
KILLED = {
    "ours": SAYING + OURS.replace("LINE", '"local"'),
    "ours_wandb": SAYING + OURS.replace("LINE", LINE_WANDB),
    "mlflow": SAYING
    + """
import mlflow
mlflow.set_tracking_uri(f"sqlite:///{home}/m.db")
mlflow.start_run()
say(-1)
for step in range(10**9):
    mlflow.log_metric("loss", step * 0.5, step=step, synchronous=False)
    say(step)
""",
    "wandb": SAYING
    + """
import wandb
run = wandb.init(mode="offline", project="mlopskit", dir=home,
                 settings=wandb.Settings(console="off", silent=True))
say(-1)
for step in range(10**9):
    run.log({"loss": step * 0.5})
    say(step)
""",
    "trackio": SAYING
    + """
os.environ["TRACKIO_DIR"] = home
import trackio
real = os.dup(1)
os.dup2(2, 1)
def say(step):
    os.write(real, b"%d\\n" % step)
run = trackio.init(project="bench")
say(-1)
for step in range(10**9):
    trackio.log({"loss": step * 0.5})
    say(step)
""",
}
READING = {
    "ours": READ_OURS.replace("LINE", '"local"'),
    "ours_wandb": READ_OURS.replace("LINE", LINE_WANDB),
    "mlflow": """
import sys, mlflow
client = mlflow.MlflowClient(f"sqlite:///{sys.argv[1]}/m.db")
(run,) = client.search_runs(["0"])
print(len(client.get_metric_history(run.info.run_id, "loss")))
""",
    "trackio": """
import glob, sqlite3, sys
found = 0
for path in glob.glob(sys.argv[1] + "/**/*.db", recursive=True):
    found += sqlite3.connect(path).execute("select count(*) from metrics").fetchone()[0]
print(found)
""",
}
SECTIONS: dict[str, Callable[[Path], None]] = {
    "calls": calls,
    "points": points,
    "wandb": wandb,
    "reads": reads,
    "kills": kills,
}


if __name__ == "__main__":
    main()
