"""The looks of page.py: one style sheet, light and dark."""

from __future__ import annotations

STYLE = """
:root { --paper:#fbfaf7; --card:#ffffff; --ink:#1d2330; --soft:#667085; --line:#e4e2dc; --good:#1f7a4d; --bad:#b3261e;
  --blue:#2f6fb3; --gold:#b9852f; --wash:rgba(47,111,179,.12); }
@media (prefers-color-scheme: dark) { :root { --paper:#12151c; --card:#1a1f29; --ink:#e6e8ee; --soft:#98a2b3;
  --line:#2b3240; --good:#5cc48d; --bad:#ff8a80; --blue:#7fb2ea; --gold:#e0b35c; --wash:rgba(127,178,234,.14); } }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif; }
main { max-width:940px; margin:0 auto; padding:44px 28px 64px; }
.over { margin:0; color:var(--soft); letter-spacing:.08em; text-transform:uppercase; font-size:12px; }
h1 { margin:2px 0 4px; font-size:38px; line-height:1.15; font-weight:650; letter-spacing:-.01em; }
h2 { margin:0 0 6px; font-size:19px; font-weight:620; }
h1.good, .good .mark { color:var(--good); } h1.bad, .bad .mark, td.bad { color:var(--bad); }
.lead { margin:0; color:var(--soft); font-size:16px; }
.finding { margin:22px 0 0; padding:14px 18px; border-left:4px solid var(--bad); background:var(--card);
  border-radius:0 8px 8px 0; overflow-wrap:anywhere; }
.stages { list-style:none; margin:26px 0 0; padding:0; background:var(--card); border:1px solid var(--line);
  border-radius:10px; }
.stages li { display:grid; grid-template-columns:26px 150px 1fr; padding:11px 18px; align-items:baseline; }
.stages li + li { border-top:1px solid var(--line); }
.stages b { font-weight:600; } .stages span:last-child { color:var(--soft); overflow-wrap:anywhere; }
.mark { font-weight:700; } .idle { opacity:.55; }
section { margin-top:40px; }
.proves, .note, figcaption { color:var(--soft); margin:0 0 14px; max-width:78ch; }
.note { margin:12px 0 0; font-size:13px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th { text-align:left; font-weight:500; } td { text-align:right; }
thead th { color:var(--soft); font-size:13px; text-align:right; } thead th:first-child { text-align:left; }
.numbers th, .numbers td, .facts th, .facts td { padding:7px 10px 7px 0; border-bottom:1px solid var(--line); }
.numbers tbody th { font-family:ui-monospace,"SF Mono",Menlo,Consolas,monospace; font-size:13px; }
.bar { width:190px; padding-left:26px !important; }
.bar i { display:block; height:8px; border-radius:4px; background:var(--blue); min-width:1px; }
.facts th { color:var(--soft); width:170px; vertical-align:top; } .facts td { text-align:left; overflow-wrap:anywhere; }
figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:10px; padding:14px 16px 6px; }
figcaption { margin-bottom:4px; font-size:13px; }
svg { width:100%; height:auto; display:block; }
.grid { stroke:var(--line); } .tick { fill:var(--soft); font-size:12px; }
.found { fill:none; stroke:var(--blue); stroke-width:2.2; stroke-linejoin:round; }
.allowed { fill:none; stroke:var(--gold); stroke-width:1.8; stroke-dasharray:6 5; }
.area { fill:var(--wash); } .dot { fill:var(--blue); } .dot.wrong { fill:var(--bad); }
.name { font-size:13px; font-weight:600; } .allowed-name { fill:var(--gold); } .found-name { fill:var(--blue); }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(200px,1fr)); gap:12px; }
.tiles div { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:13px 16px; }
.tiles p { margin:0; color:var(--soft); font-size:13px; } .tiles strong { font-size:25px; font-weight:620;
  font-variant-numeric:tabular-nums; }
@media (max-width:640px) { main { padding:28px 16px 40px; } .bar { display:none; } .numbers { font-size:13px; }
  .numbers tbody th { font-size:11px; } .stages li { grid-template-columns:26px 1fr; }
  .stages span:last-child { grid-column:2; } }
@media print { body { background:#fff; } main { padding:0; } section { break-inside:avoid; } }
"""
