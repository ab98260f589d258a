"""The tables of ``campfire cost``."""

from typing import Any

HEAD = (
    f"{'shape':>15} {'grain':>7} {'zeros: 0-D':>11} {'1-D':>6} {'2-D':>6} {'3-D':>6} {'M MACs':>9} {'living':>9}"
    f" {'Mao %':>6} {'file %':>7} {'wait K':>7} {'wait C':>7}"
)
LIVE = f" {'act. %':>7} {'M refs':>9} {'of dense %':>11} {'kB':>9} {'uJ':>9}"
NOTES = (
    "Mao %: values of 8 bits and 4-bit indices; file %: bytes of the packed file; both of the dense layer. wait K, C: time of an\n"
    "array of {array} elements that outputs or inputs are dealt to, over that of evenly spread work."
)
LIVE_NOTES = (
    "act. %: activations that are not zero; refs: of output memory, products of a kernel row being one; kB: weights, inputs and\n"
    "outputs to and from memory; uJ: {mac} pJ a product, 2 x {sram} pJ a reference, {dram} pJ a byte. {images} images: {images_from}."
)


def layers(found: dict[str, Any]) -> str:
    """One network, layer by layer; everything is for one image."""
    wide = max([len(r["name"]) for r in found["layers"]] + [12])
    live = found["images"] > 0
    accuracy = "" if found["top1"] is None else f", top-1 {found['top1']:.2f} %"
    lines = [
        f"{found['name']}, {found['structure']}{accuracy}: "
        f"{found['living_parameters']:,} of {found['parameters']:,} parameters live",
        f"{'layer':{wide}} {HEAD}{LIVE if live else ''}",
    ]
    lines += [_line(r["name"], wide, "x".join(map(str, r["shape"])), r["grain"], r) for r in found["layers"]]
    lines += [_line(name, wide, "", "", found[name]) for name in ("convolutions", "all")]
    return "\n".join([*lines, _notes(found)])


def side_by_side(found: dict[str, Any]) -> str:
    """Several networks, a line each: sums over their convolutions."""
    rows = found["rows"]
    wide = max([len(r["name"]) for r in rows] + [12])
    lines = [f"{'convolutions':{wide}} {'top-1':>15} {HEAD[16:]}{LIVE if rows[0]['images'] else ''}"]
    lines += [_line(r["name"], wide, _top1(r["top1"]), "", r["convolutions"]) for r in rows]
    lines.append(_notes(rows[0]))
    if equal := found["equal_accuracy"]:
        lines += ["", f"at a top-1 of {equal['top1']:.2f} %, on straight lines between runs:"]
        lines += [_crossing(name, x) for name, x in equal["structures"].items()]
    return "\n".join(lines)


def _line(name: str, wide: int, shape: str, grain: str, x: dict[str, Any]) -> str:
    zeros = x["sparsity"]
    text = f"{name:{wide}} {shape:>15} {grain:>7} {zeros['fine']:11.4f}"
    text += "".join(f" {zeros[g]:6.3f}" for g in ("vector", "kernel", "filter"))
    text += f" {x['macs'] / 1e6:9.3f} {x['sparse_macs'] / 1e6:9.3f} {100 * x['mao_ratio']:6.2f} {100 * x['file_ratio']:7.2f}"
    text += "".join(f" {x['imbalance'][way]:7.3f}" for way in ("outputs", "inputs"))
    if live := x["activity"]:
        refs, ratio = live["references"]["row_merge"], live["references_ratio"]["row_merge"]
        text += f" {100 * live['activation_density']:7.1f} {refs / 1e6:9.3f} {100 * ratio:11.1f}"
        text += f" {live['moved_bytes'] / 1e3:9.1f} {live['energy_pj']['total'] / 1e6:9.2f}"
    return text


def _notes(found: dict[str, Any]) -> str:
    known = {**found, **found["energy_model_pj"]}
    return (NOTES + ("\n" + LIVE_NOTES if found["images"] else "")).format(**known)


def _top1(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.2f} %"


def _crossing(name: str, x: dict[str, Any] | None) -> str:
    if x is None:
        return f"  {name:12} never reaches it"
    costs, most = x["costs"], "" if x["exact"] else "  (at most: its sparsest run is better)"
    return (
        f"  {name:12} density {x['density']:6.2%}, storage {costs['mao_ratio']:6.2%} (Mao), {costs['file_ratio']:6.2%} "
        f"(file), {costs['sparse_macs'] / 1e6:.2f} M MACs{most}"
    ).replace("%", " %")
