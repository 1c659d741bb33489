"""The fixed parts of the page: structure, style and the script that sorts its table."""

# `$name` is filled by string.Template. No part of it may load anything: plotly.js is inline.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="\
default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
img-src data: blob:; form-action 'none'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$task: withdrawal of visual tokens</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$task</h1>
<p class="verdict">$verdict</p>
<p class="note">$samples. KL is $kl, in nats. In this table
limits are judged on the point estimate; intervals are 95 % and only shown.</p>
<h2>Accuracy and multiply-adds</h2>
<p class="note">$figure_note Hover for a point's numbers.</p>
$figure
<h2>All policies</h2>
<p class="note">Select a column's title to sort by it.</p>
<div class="wide"><table id="rows">
<thead><tr>$headers</tr></thead>
<tbody>
$rows
</tbody>
</table></div>
$tests
$baselines
$sharing
$limits
$racing
$noise
$policy_noise
$holdout
$identity
</main>
<script>$script</script>
</body>
</html>
"""

STYLE = """
body { margin: 0; background: #fff; color: #222; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 24px; }
h1 { margin: 0 0 4px; font-size: 28px; overflow-wrap: anywhere; }
h2 { margin: 32px 0 4px; font-size: 20px; }
.verdict { margin: 0 0 8px; font-size: 18px; }
.note { margin: 0 0 8px; color: #595959; font-size: 14px; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 7px; border-bottom: 1px solid #e4e4e4; text-align: left; white-space: nowrap; }
small { color: #595959; font-size: 12px; font-weight: 400; }
#rows td:nth-child(2) { white-space: normal; }
#rows td:last-child { min-width: 260px; white-space: normal; }
.number { text-align: right; }
th { border-bottom: 2px solid #999; vertical-align: bottom; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072B2; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
tr.chosen { background: #fdeee3; font-weight: 600; }
tr.broken td:last-child { color: #a33c00; }
details { margin-top: 16px; }
summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0; font-size: 14px; }
dt { color: #595959; }
dd { margin: 0; overflow-wrap: anywhere; }
.heat td { text-align: center; min-width: 110px; }
.heat th { font-weight: 600; border-bottom: 1px solid #e4e4e4; }
"""

SCRIPT = """
"use strict";
(function () {
  const table = document.getElementById("rows");
  const heads = Array.from(table.tHead.rows[0].cells);
  function compare(a, b) {
    const x = a.dataset.sort, y = b.dataset.sort;
    const numeric = a.classList.contains("number") && b.classList.contains("number");
    return numeric ? Number(x) - Number(y) : x.localeCompare(y);
  }
  function sortBy(column) {
    const descending = heads[column].getAttribute("aria-sort") === "ascending";
    const rows = Array.from(table.tBodies[0].rows);
    const missing = (row) => row.cells[column].dataset.sort === "";
    const known = rows.filter((row) => !missing(row));
    known.sort((a, b) => (descending ? -1 : 1) * compare(a.cells[column], b.cells[column]));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    table.tBodies[0].append(...known, ...rows.filter(missing));
  }
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sortBy(column)));
})();
"""
