"""The style sheet of the demo's report."""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#17202c;--soft:#5c6a7c;--line:#e1e6ec;
--live:#1f6feb;--first:#8a95a5;--good:#1a7f4b;--warn:#b86a00;--bad:#c4342d;--heat:214,78,24;
--gain:rgba(31,111,235,.12);--loss:rgba(196,52,45,.16)}
@media(prefers-color-scheme:dark){:root{--bg:#0e131a;--card:#171e28;--ink:#e8edf4;--soft:#94a2b5;
--line:#2a3441;--live:#58a6ff;--first:#8693a5;--good:#4cc38a;--warn:#f0a73a;--bad:#ff7b72;
--heat:255,122,61;--gain:rgba(88,166,255,.16);--loss:rgba(255,123,114,.22)}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1000px;margin:0 auto;padding:40px 20px 64px}
.eyebrow{margin:0;color:var(--live);font-weight:600;font-size:.85rem;letter-spacing:.04em}
h1{font-size:clamp(1.6rem,4.4vw,2.5rem);line-height:1.15;margin:.2em 0 .4em;letter-spacing:-.02em;
text-wrap:balance}
h2{font-size:1.15rem;margin:0 0 .3rem;letter-spacing:-.01em}
h3{font-size:1rem;margin:0}
header p{max-width:44rem;color:var(--soft);margin:.2rem 0}
section,footer{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px;
margin:18px 0}
.note{color:var(--soft);font-size:.9rem;margin:.1rem 0 1rem;max-width:46rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;
margin:26px 0 18px}
.figures div{display:flex;flex-direction:column-reverse;justify-content:flex-end;
background:var(--card);
border:1px solid var(--line);border-radius:14px;padding:14px 16px}
.figures dd{margin:0;font-size:1.6rem;font-weight:650;letter-spacing:-.02em;
font-variant-numeric:tabular-nums;white-space:nowrap}
.figures dt{color:var(--soft);font-size:.8rem;line-height:1.3}
svg{display:block;width:100%;height:auto}
.narrow{display:none}
.grid{stroke:var(--line)}
.tick{fill:var(--soft);font-size:13px;font-variant-numeric:tabular-nums}
polyline{fill:none;stroke-width:2.5;stroke-linejoin:round;stroke-linecap:round}
polyline.live{stroke:var(--live);stroke-width:3}
polyline.first{stroke:var(--first);stroke-dasharray:2 6}
.gain{fill:var(--gain);shape-rendering:crispEdges}
.loss{fill:var(--loss);shape-rendering:crispEdges}
.short{display:none}
svg .promoted{fill:var(--good);stroke:var(--card);stroke-width:2}
svg .refused{fill:var(--card);stroke:var(--warn);stroke-width:2.5}
svg .kept{fill:var(--live);stroke:var(--card);stroke-width:2}
.legend{display:flex;flex-wrap:wrap;gap:6px 20px;margin:.3rem 0 .8rem;font-size:.85rem;
color:var(--soft)}
.legend span::before{content:"";display:inline-block;margin-right:8px;vertical-align:middle}
.live-key::before{width:20px;height:3px;background:var(--live);border-radius:2px}
.first-key::before{width:20px;border-top:3px dotted var(--first)}
.promoted-key::before{width:11px;height:11px;border-radius:50%;background:var(--good)}
.refused-key::before{width:9px;height:9px;transform:rotate(45deg);border:2.5px solid var(--warn)}
.scroll{overflow-x:auto;margin:0 -22px;padding:0 22px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.93rem}
th,td{padding:8px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
thead th{color:var(--soft);font-weight:500;font-size:.82rem}
tbody tr:last-child>*{border-bottom:0}
th:first-child,td:last-child,thead th:last-child{text-align:left}
th:first-child{padding-left:0}
td.better{color:var(--good);font-weight:600}td.worse{color:var(--bad);font-weight:600}
td.promoted{color:var(--good)}td.refused{color:var(--warn)}td.kept{color:var(--soft)}
.heat{display:grid;grid-template-columns:11rem repeat(var(--months),1fr);gap:3px;margin-bottom:3px;
align-items:center}
.heat b{font-weight:500;font-size:.82rem;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.heat span{font-size:.78rem;color:var(--soft);text-align:center}
.heat i{display:flex;align-items:center;justify-content:center;height:24px;border-radius:4px;
background:rgba(var(--heat),var(--a));font-style:normal;font-size:.72rem;color:var(--ink);
font-variant-numeric:tabular-nums;box-shadow:inset 0 0 0 1px var(--line)}
.heat i.on{box-shadow:none;font-weight:600}
.decision{border-left:4px solid var(--line);padding:2px 0 2px 14px;margin:16px 0}
.decision.promoted{border-color:var(--good)}.decision.refused{border-color:var(--warn)}
.decision small{font-weight:400;color:var(--soft);font-size:.9rem;margin-left:6px}
.decision ul{margin:.3rem 0 0;padding-left:1.1rem;color:var(--soft);font-size:.9rem}
.lineage{display:flex;gap:14px;align-items:center;padding:10px 0;border-top:1px solid var(--line)}
.lineage h3{min-width:2.4rem;color:var(--live)}
.lineage ol{list-style:none;display:grid;grid-template-columns:1.6fr 1.1fr 1.1fr 1.1fr 1.3fr;
gap:10px;margin:0;padding:0;flex:1}
.lineage li{min-width:0;position:relative;font-size:.82rem}
.lineage li+li::before{content:"→";position:absolute;left:-.95rem;top:1.1rem;color:var(--first)}
.lineage li{padding-left:.3rem}
.lineage small,.lineage span{display:block;color:var(--soft);font-size:.75rem}
.lineage b{display:block;font-weight:600;overflow-wrap:anywhere}
footer ul{margin:.3rem 0 1rem;padding-left:1.1rem}
footer p{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere;margin-bottom:0}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
@media(max-width:640px){
main{padding:24px 12px 40px}
section,footer{padding:16px;border-radius:12px}
.scroll{margin:0 -16px;padding:0 16px}
.wide,.long{display:none}.narrow{display:block}.short{display:inline}
th,td{padding:8px 5px}
.figures{grid-template-columns:1fr 1fr;gap:8px}
.figures dd{font-size:1.3rem}
.heat{grid-template-columns:7.6rem repeat(var(--months),1fr);gap:2px;margin-bottom:2px}
.heat b{font-size:.7rem}.heat span{font-size:.6rem}
.heat i{font-size:0;height:20px;border-radius:3px}
.heat i.on::after{content:"";width:5px;height:5px;border-radius:50%;background:var(--ink)}
.lineage{align-items:flex-start}
.lineage ol{grid-template-columns:1fr 1fr}
.lineage li+li::before{content:none}
}
@media print{section,footer{break-inside:avoid}}
"""
