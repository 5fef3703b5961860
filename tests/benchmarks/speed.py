"""Measure the generators against their published code: ``python tests/benchmarks/speed.py --official CHECKOUT``.

Prints ratios, baseline over ours, from one run; nothing is asserted. Contenders live in processes of their own, with random
weights that are copied from the baseline, and take turns, so that what else the machine does hits them alike. ``--official``
takes a checkout of NVlabs/stylegan2-ada-pytorch or NVlabs/stylegan3 (or both, given twice): their licence is non-commercial,
so they are no part of this project. Without it, only the default generator (against OpenVINO, where it is installed) and, on
a GPU, the bandwidth of resampling are measured.

On a CPU the baseline runs as its users run it, in float32 by its own plain-PyTorch path; rows that say "same allocator" give
both contenders ``keep_freed_memory``, which is what the command line of this project calls. CPU time is the better measure
on a machine that does other things, too. On a GPU the baseline uses its
own CUDA kernels where they compile, and the table says whether they did.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WARM_UPS = 1
CLOCKS = ("seconds", "cpu")


class Contender(NamedTuple):
    """What a process of its own runs, again and again."""

    name: str
    kind: str
    """official, ours or openvino."""
    network: str
    """stylegan2, stylegan3 or default."""
    gradients: bool = False
    """Whether to go back to w_plus, too."""
    keep_memory: bool = False
    dtype: str = "float32"
    compiled: bool = False


class Match(NamedTuple):
    """A baseline and those who are measured against it."""

    title: str
    contenders: tuple[Contender, ...]


def matches(official: list[Path], device: str) -> Iterator[Match]:
    """List what this machine, and the checkouts that were given, allow."""
    half = "bfloat16" if device == "cpu" else "float16"
    found = [name for name in ("stylegan2", "stylegan3") if find_official(official, name)]
    for network in found:
        for gradients in (False, True):
            title = f"{network} 1024 px, batch 1, " + ("forward and backward to w_plus" if gradients else "synthesis")
            contenders = [Contender("published code", "official", network, gradients)]
            if device == "cpu":
                contenders += [
                    Contender("published code, same allocator", "official", network, gradients, keep_memory=True),
                    Contender("ours, default allocator", "ours", network, gradients),
                ]
            contenders.append(Contender("ours", "ours", network, gradients, keep_memory=True))
            contenders.append(Contender(f"ours, {half}", "ours", network, gradients, keep_memory=True, dtype=half))
            yield Match(title, tuple(contenders))
    if device == "cpu" and is_installed("openvino"):
        rivals = (Contender("OpenVINO, float32", "openvino", "default"), Contender("ours", "ours", "default", False, True))
        yield Match("default generator, synthesis", rivals)


def is_installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def find_official(checkouts: list[Path], network: str) -> tuple[Path, str] | None:
    """Return the checkout that holds a network, and the module that it is in."""
    modules = {"stylegan2": ("networks", "networks_stylegan2"), "stylegan3": ("networks_stylegan3",)}[network]
    for checkout in checkouts:
        for module in modules:
            if (checkout / "training" / f"{module}.py").is_file():
                return checkout, f"training.{module}"
    return None


# In the contenders' processes.


def compete(contender: Contender, options: argparse.Namespace) -> None:
    """Build a contender; then run it whenever told to, and say how long it took and what memory it has needed."""
    import torch

    sys.path.insert(0, str(REPOSITORY))
    torch.set_num_threads(options.threads)
    if contender.keep_memory:
        from invert.performance import keep_freed_memory

        keep_freed_memory()
    say, sys.stdout = sys.stdout, sys.stderr  # The published code prints.
    run, notes = BUILDERS[contender.kind](contender, options)

    def timed() -> tuple[float, float]:
        wait(options.device)
        began, worked = time.perf_counter(), time.process_time()
        run()
        wait(options.device)
        return time.perf_counter() - began, time.process_time() - worked

    for _ in range(WARM_UPS):
        result = run()
    torch.save(result, Path(options.folder) / f"{contender.name}.pt")
    del result
    say.write(json.dumps({"notes": notes() if notes else ""}) + "\n")
    say.flush()
    for _ in sys.stdin:
        seconds, cpu_seconds = timed()
        run_record = {"seconds": seconds, "cpu": cpu_seconds, "bytes": peak_memory(options.device)}
        say.write(json.dumps(run_record) + "\n")
        say.flush()


def wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def peak_memory(device: str) -> int:
    """Return the process's peak: resident memory, or what it has allocated on the GPU."""
    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def build_official(contender: Contender, options: argparse.Namespace) -> tuple[Callable[[], Any], Callable[[], str] | None]:
    import importlib

    found = find_official([Path(path) for path in options.official], contender.network)
    assert found is not None, "matches() lists a network only where there is a checkout"
    sys.path.insert(0, str(found[0]))
    stand_in_for_pkg_resources()
    module = importlib.import_module(found[1])
    arguments: dict[str, Any] = {"channel_base": 32768, "channel_max": 512, "num_fp16_res": 0}
    if contender.network == "stylegan2" and found[1] == "training.networks":
        network = module.Generator(512, 0, 512, 1024, 3, mapping_kwargs={"num_layers": 8}, synthesis_kwargs=arguments)
    else:
        depth = {"num_layers": 8 if contender.network == "stylegan2" else 2}
        network = module.Generator(512, 0, 512, 1024, 3, mapping_kwargs=depth, **arguments)
    network = network.eval().requires_grad_(False)
    exchange_weights(network, contender, options)
    network = network.to(options.device)
    synthesis = draw_with(contender, options, lambda w: network.synthesis(w, noise_mode="const", force_fp32=True))

    def notes() -> str:
        if options.device == "cpu":
            return ""
        from torch_utils.ops import upfirdn2d

        return "with its CUDA kernels" if getattr(upfirdn2d, "_plugin", None) else "its CUDA kernels did not compile"

    return synthesis, notes


def stand_in_for_pkg_resources() -> None:
    """Offer the one function that stylegan3's code takes from it: setuptools has dropped the module."""
    if not is_installed("pkg_resources"):
        import types

        from packaging.version import parse

        module = types.ModuleType("pkg_resources")
        module.parse_version = parse
        sys.modules["pkg_resources"] = module


def build_ours(contender: Contender, options: argparse.Namespace) -> tuple[Callable[[], Any], None]:
    import torch

    if contender.network == "default":
        from pretrained.loading import load_generator

        network: Any = load_generator()
    else:
        from generators.stylegan2 import StyleGAN2
        from generators.stylegan3 import StyleGAN3

        network = (StyleGAN2 if contender.network == "stylegan2" else StyleGAN3)().eval().requires_grad_(False)
        exchange_weights(network, contender, options)
    network = network.to(options.device).compute_in(getattr(torch, contender.dtype))
    return draw_with(contender, options, network.synthesis), None


def build_openvino(contender: Contender, options: argparse.Namespace) -> tuple[Callable[[], Any], None]:
    """Convert the default generator, or read the published network where ``--openvino`` says where it lies."""
    import openvino
    import torch

    from generators import mobilestylegan
    from pretrained.loading import load_generator

    network = load_generator()
    w_plus = codes("default")
    if options.openvino:
        model, inputs = openvino.Core().read_model(options.openvino), [w_plus[:, 0].numpy()]
    else:

        class Synthesis(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, w_plus):
                return self.network.synthesis(w_plus)

        # OpenVINO cannot read ops that write into a part of a tensor, as the inverse Haar transform's do.
        mobilestylegan.inverse_haar = stacked_haar  # type: ignore[attr-defined]
        with torch.no_grad():
            traced = torch.jit.trace(Synthesis(), w_plus, check_trace=False)
        model, inputs = openvino.convert_model(traced, example_input=w_plus), [w_plus.numpy()]
    settings = {"INFERENCE_NUM_THREADS": options.threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda: torch.from_numpy(compiled(inputs)[0].copy()), None


def stacked_haar(bands: Any) -> Any:
    """Join sub-bands by stacking pixels."""
    import torch

    batch, four_c, height, width = bands.shape
    channels = four_c // 4
    low = bands[:, :channels]
    lh, hl, hh = (bands[:, channels + k :: 3] for k in range(3))
    top = torch.stack([low + lh + hl + hh, low + lh - hl - hh], dim=-1)
    bottom = torch.stack([low - lh + hl - hh, low - lh - hl + hh], dim=-1)
    return torch.stack([top, bottom], dim=3).reshape(batch, channels, 2 * height, 2 * width) * 0.5


BUILDERS = {"official": build_official, "ours": build_ours, "openvino": build_openvino}


def codes(network: str) -> Any:
    """Return a w_plus: one w throughout for the default generator, since the published network takes no other."""
    import torch

    num_ws = {"stylegan2": 18, "stylegan3": 16, "default": 16}[network]
    random = torch.Generator().manual_seed(1)
    if network == "default":
        return torch.randn(1, 1, 512, generator=random).repeat(1, num_ws, 1)
    return torch.randn(1, num_ws, 512, generator=random)


def draw_with(contender: Contender, options: argparse.Namespace, synthesis: Callable[[Any], Any]) -> Callable[[], Any]:
    """Return what draws an image, or what draws one and returns the gradient of its mean square."""
    import torch

    w_plus = codes(contender.network).to(options.device)

    def forward() -> Any:
        with torch.inference_mode():
            return synthesis(w_plus)

    def backward() -> Any:
        leaf = w_plus.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(synthesis(leaf).square().mean(), leaf)
        return gradient

    return backward if contender.gradients else forward


def exchange_weights(network: Any, contender: Contender, options: argparse.Namespace) -> None:
    """Leave random weights, noise and biases among them, for the others, or take what was left."""
    import torch

    path = Path(options.folder) / f"{contender.network}.weights.pt"
    if not path.exists():
        random = torch.Generator().manual_seed(0)
        for name, value in network.state_dict().items():
            if name.endswith(("noise_strength", "bias")):
                value.add_(torch.randn(value.shape, generator=random) * 0.1)
        torch.save(network.state_dict(), path)
    network.load_state_dict(torch.load(path))


# In the process that prints.


def measure(match: Match, options: argparse.Namespace) -> None:
    """Let contenders take turns and print a row for each."""
    processes = []
    for contender in match.contenders:
        process = start(contender, options)
        processes.append((contender, process, answer(contender, process)["notes"]))
    results: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in match.contenders}
    for _ in range(options.repeats):
        for contender, process, _ in processes:
            assert process.stdin is not None
            process.stdin.write("run\n")
            process.stdin.flush()
            results[contender.name].append(answer(contender, process))
    for _, process, _ in processes:
        process.communicate()
    report(match, results, {contender.name: note for contender, _, note in processes}, Path(options.folder))


def start(contender: Contender, options: argparse.Namespace) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    arguments = [json.dumps(contender), json.dumps(vars(options))]
    command = [sys.executable, __file__, "--compete", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def answer(contender: Contender, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{contender.name} stopped: its error is above")
    return json.loads(line)


def report(match: Match, results: dict[str, list[dict[str, float]]], notes: dict[str, str], folder: Path) -> None:
    import torch

    baseline = match.contenders[0].name
    expected = torch.load(folder / f"{baseline}.pt").float().cpu()
    wall, cpu = ({name: statistics.median(run[kind] for run in runs) for name, runs in results.items()} for kind in CLOCKS)
    rows = [["what", "median", "spread", "times as fast", "by CPU time", "peak memory", "largest difference", "PSNR"]]
    rows.append(["---"] * len(rows[0]))
    for name, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        actual = torch.load(folder / f"{name}.pt").float().cpu()
        difference = ((actual - expected).abs().max() / expected.abs().max()).item()
        rows.append(
            [
                f"{name} ({notes[name]})" if notes[name] else name,
                f"{wall[name]:.3f} s",
                f"{min(seconds):.3f} to {max(seconds):.3f} s",
                f"{wall[baseline] / wall[name]:.2f}",
                f"{cpu[baseline] / cpu[name]:.2f}",
                f"{max(run['bytes'] for run in runs) / 2**30:.2f} GB",
                f"{difference:.1e} of the largest",
                "-" if match.contenders[0].gradients or name == baseline else psnr(actual, expected),
            ]
        )
    lines = [f"\n{match.title}", *(f"| {' | '.join(row)} |" for row in rows)]
    for name in wall:
        if name.endswith("same allocator"):
            ratio, by_cpu = wall[name] / wall["ours"], cpu[name] / cpu["ours"]
            lines.append(f"\nWith the same allocator, ours is {ratio:.2f} times as fast ({by_cpu:.2f} by CPU time).")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def psnr(image: Any, expected: Any) -> str:
    """Return the peak signal-to-noise ratio of images in [-1, 1]."""
    error = (image - expected).square().mean().item()
    return f"{10 * math.log10(2**2 / error):.1f} dB" if error else "the same"


def resampling_bandwidth(repeats: int) -> None:
    """Print what share of the bandwidth of a copy ``upfirdn2d`` reaches at 1024 px, on a GPU."""
    import torch

    sys.path.insert(0, str(REPOSITORY))
    from generators.ops import setup_filter, upfirdn2d

    sys.stdout.write(
        "\nupfirdn2d, 32 channels, to or from 1024 px, against a copy of as many bytes\n"
        "| type | layout | case | GB/s | of the copy's |\n| --- | --- | --- | --- | --- |\n"
    )
    f = setup_filter([1, 3, 3, 1]).cuda()
    cases = {"filter": (1, 1, (2, 1, 2, 1)), "up 2": (2, 1, (2, 1, 2, 1)), "down 2": (1, 2, (1, 1, 1, 1))}
    for dtype in (torch.float32, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            for name, (up, down, pads) in cases.items():
                x = torch.randn(4, 32, 1024 // up, 1024 // up, device="cuda").to(dtype, memory_format=layout)
                y = upfirdn2d(x, f, up, down, pads)
                size = (x.numel() + y.numel()) * x.element_size()
                source = torch.empty(size // 2, dtype=torch.uint8, device="cuda")
                target = torch.empty_like(source)
                seconds = on_gpu(lambda x=x, up=up, down=down, pads=pads: upfirdn2d(x, f, up, down, pads), repeats)
                copy = on_gpu(lambda source=source, target=target: target.copy_(source), repeats)
                label = "channels last" if layout == torch.channels_last else "channels first"
                sys.stdout.write(f"| {dtype} | {label} | {name} | {size / seconds / 1e9:.0f} | {copy / seconds:.0%} |\n")


def on_gpu(call: Callable[[], Any], repeats: int, calls: int = 20) -> float:
    """Return the median seconds of a call, taken over rounds of several."""
    import torch

    call()
    times = []
    for _ in range(repeats):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(calls):
            call()
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after) / 1e3 / calls)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", action="append", default=[], metavar="DIR", help="a checkout of the published code")
    parser.add_argument("--openvino", metavar="XML", help="the default generator's published SynthesisNetwork.xml")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that medians are taken over")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of every contender")
    parser.add_argument("--device", help="cpu or cuda; a GPU where there is one, unless given")
    parser.add_argument("--only", default="", metavar="TEXT", help="only tables whose title holds this text")
    options = parser.parse_args()
    import torch

    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    options.official = [str(Path(path).resolve()) for path in options.official]
    sys.stdout.write(f"{options.device}, {options.threads} CPU threads, PyTorch {torch.__version__}\n")
    for checkout in options.official:
        if not any(find_official([Path(checkout)], network) for network in ("stylegan2", "stylegan3")):
            parser.error(f"{checkout} holds neither NVlabs/stylegan2-ada-pytorch nor NVlabs/stylegan3")
    for match in matches([Path(path) for path in options.official], options.device):
        if options.only in match.title:
            with tempfile.TemporaryDirectory() as options.folder:
                measure(match, options)
    if options.device != "cpu" and options.only in "upfirdn2d":
        resampling_bandwidth(options.repeats)


if __name__ == "__main__":
    if "--compete" in sys.argv:
        compete(Contender(*json.loads(sys.argv[2])), argparse.Namespace(**json.loads(sys.argv[3])))
    else:
        main()
