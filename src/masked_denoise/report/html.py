"""The HTML around the pictures of a report: heading, tables, style and script.

Without JavaScript the two pictures of a comparison are side by side; with it they overlap, and a
line between them follows pointer and arrow keys. The invisible range input receives the keyboard
and serves screen readers.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass

Number = str | float | tuple[float, float]


@dataclass(frozen=True)
class Row:
    """What is kept of an entry once its pictures are compressed."""

    name: str
    numbers: Mapping[str, Number]
    section: str  # HTML; empty where no pictures are shown
    measured: bool  # whether PSNR and SSIM were measured for the report


def _text(value: float) -> str:
    """Return a number with about four digits, large ones without decimals: 33.12, 0.9047, 1840."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"


def definitions(values: Mapping[str, Number], extra: str = "") -> str:
    """Return names and values as a definition list, pairs as "before → after"."""
    items = ""
    for name, value in values.items():
        if isinstance(value, tuple):
            shown = f"{_text(value[0])} → <strong>{_text(value[1])}</strong>"
        else:
            shown = html.escape(value if isinstance(value, str) else _text(value))
        items += f"<div><dt>{html.escape(name)}</dt><dd>{shown}</dd></div>"
    return f'<dl class="{extra}">{items}</dl>' if items else ""


def _table(rows: list[Row]) -> str:
    """Return the table of all entries: a link each, values before and after, and their means."""
    names = list(dict.fromkeys(k for r in rows for k, v in r.numbers.items() if type(v) is tuple))
    heads = "".join(f'<th colspan="2" scope="colgroup">{html.escape(n)}</th>' for n in names)
    subheads = '<th scope="col">before</th><th scope="col">after</th>' * len(names)
    body = ""
    for index, row in enumerate(rows):
        name = html.escape(row.name)
        link = f'<a href="#picture-{index + 1}">{name}</a>' if row.section else name
        body += f'<tr><th scope="row">{link}</th>'
        for key in names:
            value = row.numbers.get(key)
            pair = [_text(x) for x in value] if isinstance(value, tuple) else ["&ndash;", "&ndash;"]
            body += f"<td>{pair[0]}</td><td>{pair[1]}</td>"
        body += "</tr>"
    foot = ""
    for key in names:
        pairs = [v for r in rows if isinstance(v := r.numbers.get(key), tuple)]
        foot += "".join(
            f"<td>{_text(sum(column) / len(pairs))}</td>" for column in zip(*pairs, strict=True)
        )
    foot = f'<tfoot><tr><th scope="row">Mean</th>{foot}</tr></tfoot>' if names else ""
    return (
        '<div class="scroll"><table><thead>'
        f'<tr><th rowspan="2" scope="col">Picture</th>{heads}</tr><tr>{subheads}</tr></thead>'
        f"<tbody>{body}</tbody>{foot}</table></div>\n"
    )


def page(rows: list[Row], title: str, facts: Mapping[str, str]) -> str:
    """Return the whole page."""
    heading = html.escape(title)
    hidden = sum(not row.section for row in rows)
    notes = "Move the line in a picture by mouse, finger or arrow keys. "
    if hidden:
        notes += f"Pictures are shown for the first {len(rows) - hidden} of {len(rows)}. "
    method = (
        "PSNR and SSIM are measured on the full-size pictures rounded to 8 bits; higher is better. "
        if any(row.measured for row in rows)
        else ""
    )
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{heading}</title>\n<style>{STYLE}</style></head>\n<body><main>\n"
        f"<header><h1>{heading}</h1>{definitions(dict(facts), 'facts')}"
        f'<p class="quiet">{notes}</p></header>\n'
        f"{_table(rows) if len(rows) > 1 else ''}{''.join(row.section for row in rows)}"
        f'<footer class="quiet">{method}Pictures on this page are JPEG copies for viewing; '
        "the denoised files themselves are not changed by it.</footer>\n"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


STYLE = """
:root { --page: #f4f5f7; --card: #fff; --ink: #1c2128; --soft: #59636e; --line: #d8dde3;
  --mark: #0b62c4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #111418; --card: #1b2027; --ink: #e8ebef; --soft: #9ba5b0; --line: #323a44;
    --mark: #6cb2ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: clamp(.75rem, 3vw, 2rem); }
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 0; overflow-wrap: anywhere; }
a { color: var(--mark); }
.quiet { color: var(--soft); font-size: .875rem; margin: .25rem 0 .75rem; }
.below + .quiet { margin-top: 1.5rem; }
.quiet:empty { display: none; }
section, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: clamp(.75rem, 2.5vw, 1.5rem); margin: 1.25rem 0; scroll-margin-top: .5rem; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .75rem 0; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; font-size: 1.15rem; overflow-wrap: anywhere; }
.facts dd { font-size: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  font-weight: 400; }
th:first-child[rowspan], tbody th, tfoot th { text-align: left; overflow-wrap: anywhere;
  min-width: 10rem; }
thead th[colspan] { text-align: center; border-bottom: 0; padding-bottom: 0; }
thead th { color: var(--soft); font-size: .8rem; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
img { display: block; width: 100%; height: auto; border-radius: 6px; }
.compare { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; margin: .75rem auto 1rem; }
.before { order: -1; }
.compare b { font-size: .8rem; font-weight: 600; }
.compare input, .compare i { display: none; }
.js .compare { --x: 50%; display: block; position: relative; overflow: hidden; border-radius: 6px;
  width: min(100%, max(20rem, 2px * var(--w)), 82vh * var(--w) / var(--h));
  aspect-ratio: var(--w) / var(--h); cursor: ew-resize; touch-action: pan-y; user-select: none;
  -webkit-user-select: none; }
.js .side { position: absolute; inset: 0; }
.js .before { clip-path: inset(0 calc(100% - var(--x)) 0 0); }
.js .side img { height: 100%; pointer-events: none; border-radius: 0; }
.js .side b { position: absolute; top: .6rem; right: .6rem; padding: .1rem .55rem;
  border-radius: 99px; background: rgb(0 0 0 / .62); color: #fff; }
.js .before b { right: auto; left: .6rem; }
.js .compare input { display: block; position: absolute; inset: 0; width: 100%; margin: 0;
  opacity: 0; pointer-events: none; }
.js .compare i { display: block; position: absolute; top: 0; bottom: 0; left: var(--x); width: 2px;
  margin-left: -1px; background: #fff; box-shadow: 0 0 4px rgb(0 0 0 / .6); pointer-events: none; }
.js .compare i::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; width: 2.25rem;
  height: 2.25rem; transform: translate(-50%, -50%); border-radius: 50%; background: #fff;
  color: #1c2128; font: 1.1rem/2.25rem sans-serif; text-align: center;
  box-shadow: 0 1px 5px rgb(0 0 0 / .5); }
.js .compare input:focus-visible + i::after { outline: 3px solid var(--mark); outline-offset: 2px; }
.below { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
figure { margin: 0; max-width: 36rem; }
figcaption { color: var(--soft); font-size: .85rem; padding-top: .35rem; }
figcaption b { color: var(--ink); }
@media (max-width: 30rem) { th, td { padding: .3rem; font-size: .85rem; }
  th:first-child[rowspan], tbody th, tfoot th { min-width: 6rem; } }
@media print { section { break-inside: avoid; } }
"""

SCRIPT = """
document.documentElement.classList.add("js");
for (const box of document.querySelectorAll(".compare")) {
  const input = box.querySelector("input");
  const show = () => {
    box.style.setProperty("--x", input.value + "%");
    input.setAttribute("aria-valuetext", Math.round(input.value) + " % of the picture is noisy");
  };
  const follow = (event) => {
    const place = box.getBoundingClientRect();
    input.value = 100 * (event.clientX - place.left) / place.width;
    show();
  };
  input.addEventListener("input", show);
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    box.setPointerCapture(event.pointerId);
    input.focus({ preventScroll: true });
    follow(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (box.hasPointerCapture(event.pointerId)) follow(event);
  });
  show();
}
"""
