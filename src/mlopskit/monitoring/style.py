"""The style sheet of the page of a drift report."""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#17202c;--soft:#5c6a7c;--line:#e1e6ec;
--before:#a9b4c2;--now:#1f6feb;--good:#1a7f4b;--bad:#c4342d;--warn:#b86a00}
@media(prefers-color-scheme:dark){:root{--bg:#0e131a;--card:#171e28;--ink:#e8edf4;--soft:#94a2b5;
--line:#2a3441;--before:#5b697b;--now:#58a6ff;--good:#4cc38a;--bad:#ff7b72;--warn:#f0a73a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1100px;margin:0 auto;padding:36px 18px 60px}
header{border-left:5px solid var(--good);padding-left:18px}
header.bad{border-color:var(--bad)}
.eyebrow{margin:0;color:var(--soft);font-weight:600;font-size:.82rem;letter-spacing:.04em}
h1{margin:0;font-size:clamp(1.7rem,5vw,2.4rem);line-height:1.2;letter-spacing:-.02em}
.bad h1{color:var(--bad)}.good h1{color:var(--good)}
header p:last-child{margin:.1rem 0 0;color:var(--soft)}
h2{font-size:1.1rem;margin:30px 0 6px}
h3{margin:0;font-size:1rem;overflow-wrap:anywhere;min-width:0}
.note{color:var(--soft);font-size:.9rem;margin:.2rem 0 .6rem;max-width:46rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px;
margin:22px 0 0}
.figures div{display:flex;flex-direction:column-reverse;background:var(--card);
border:1px solid var(--line);border-radius:12px;padding:12px 14px}
.figures dd{margin:0;font-size:1.45rem;font-weight:650;font-variant-numeric:tabular-nums}
dt{color:var(--soft);font-size:.8rem}
.findings{list-style:none;margin:0;padding:0;background:var(--card);border:1px solid var(--line);
border-radius:12px}
.findings li{display:flex;gap:12px;padding:10px 14px;border-top:1px solid var(--line)}
.findings li:first-child{border-top:0}
.findings span{overflow-wrap:anywhere;min-width:0}
.findings b{flex:none;width:3.6rem;font-size:.85rem;line-height:1.8}
.findings .error b{color:var(--bad)}.findings .warning b{color:var(--warn)}
.findings .info b{color:var(--soft)}
.legend{display:flex;gap:18px;margin:0 0 12px;color:var(--soft);font-size:.85rem}
.legend span::before{content:"";display:inline-block;width:12px;height:12px;border-radius:3px;
margin-right:7px;vertical-align:-1px;background:var(--before)}
.legend .current::before{background:var(--now)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:14px}
article{display:grid;grid-template-columns:1fr auto;gap:4px 10px;align-content:start;
background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;min-width:0}
article>:not(h3):not(.badge){grid-column:1/-1}
.badge{align-self:start;font-size:.75rem;font-weight:600;border-radius:99px;padding:2px 10px;
border:1px solid currentColor;color:var(--soft);white-space:nowrap}
.drifted .badge{color:var(--bad)}.steady .badge{color:var(--good)}
.drifted{border-color:var(--bad)}
.effect{margin:4px 0 0;color:var(--soft);font-size:.85rem}
.effect b{color:var(--ink);font-size:1.1rem;font-variant-numeric:tabular-nums;margin-right:4px}
svg{display:block;width:100%}
.meter{height:6px}.track{fill:var(--line)}.value{fill:var(--good)}.drifted .value{fill:var(--bad)}
.mark{fill:var(--ink)}
.bars{margin-top:10px;height:auto}
.bars .reference{fill:var(--before)}.bars .current{fill:var(--now)}
.bars line{stroke:var(--line);stroke-width:1}
.ends{display:flex;justify-content:space-between;gap:10px;margin:0;color:var(--soft);
font-size:.75rem;overflow-wrap:anywhere}
.facts{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 0}
.facts div{display:flex;gap:6px;align-items:baseline;font-size:.85rem}
.facts dd{margin:0;font-variant-numeric:tabular-nums}
.reason{margin:2px 0 0;color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}
"""
