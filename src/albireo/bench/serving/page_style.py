"""The looks of page.py: one style sheet, light and dark."""

from __future__ import annotations

STYLE = """
:root { --paper:#fbfaf7; --card:#ffffff; --ink:#1d2330; --soft:#667085; --line:#e4e2dc; --bad:#b3261e;
  --blue:#2f6fb3; --gold:#d19a3a; --grey:#c9ccd3; --wash:rgba(47,111,179,.14); }
@media (prefers-color-scheme: dark) { :root { --paper:#12151c; --card:#1a1f29; --ink:#e6e8ee; --soft:#98a2b3;
  --line:#2b3240; --bad:#ff8a80; --blue:#7fb2ea; --gold:#e0b35c; --grey:#454e5f; --wash:rgba(127,178,234,.16); } }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif; }
main { max-width:940px; margin:0 auto; padding:44px 28px 64px; }
.over { margin:0; color:var(--soft); letter-spacing:.08em; text-transform:uppercase; font-size:12px; }
h1 { margin:2px 0 4px; font-size:34px; line-height:1.2; font-weight:650; overflow-wrap:anywhere; }
h2 { margin:0 0 8px; font-size:19px; font-weight:620; }
.lead, .note, figcaption { color:var(--soft); margin:0; } .note { margin-top:10px; font-size:13px; }
section { margin-top:36px; }
.warnings { margin:22px 0 0; padding:12px 18px 12px 34px; border-left:4px solid var(--bad); background:var(--card);
  border-radius:0 8px 8px 0; overflow-wrap:anywhere; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)); gap:12px; margin-top:26px; }
.tiles div { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:13px 16px; }
.tiles p { margin:0; color:var(--soft); font-size:13px; }
.tiles strong { font-size:25px; font-weight:620; font-variant-numeric:tabular-nums; }
figure { margin:0 0 12px; background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:14px 16px 6px; }
figcaption { font-size:13px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th { text-align:left; font-weight:500; } td { text-align:right; }
thead th { color:var(--soft); font-size:13px; text-align:right; } thead th:first-child { text-align:left; }
th, td { padding:7px 10px 7px 0; border-bottom:1px solid var(--line); }
.facts th { color:var(--soft); width:210px; } .facts td { text-align:left; overflow-wrap:anywhere; }
svg { width:100%; height:auto; display:block; }
.axis, .grid { stroke:var(--line); } .tick { fill:var(--soft); font-size:12px; }
.line { fill:none; stroke:var(--blue); stroke-width:1.8; stroke-linejoin:round; } .area { fill:var(--wash); }
.bar, .decode { fill:var(--blue); } .prefill { fill:var(--gold); } .queue { fill:var(--grey); }
.failed { fill:var(--bad); } .mark { stroke:var(--gold); stroke-width:1.6; stroke-dasharray:5 4; }
.name { fill:var(--ink); font-size:12px; font-weight:600; }
.key { display:inline-block; width:11px; height:11px; border-radius:3px; margin:0 5px 0 14px; }
.key.queue { background:var(--grey); } .key.prefill { background:var(--gold); } .key.decode { background:var(--blue); }
.key.failed { background:var(--bad); } .key:first-child { margin-left:0; }
@media (max-width:640px) { main { padding:28px 14px 40px; } h1 { font-size:26px; } table { font-size:13px; } }
@media print { body { background:#fff; } main { padding:0; } section { break-inside:avoid; } }
"""
