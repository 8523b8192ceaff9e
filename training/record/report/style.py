"""The look of the page: one style sheet for light and dark, one small script for hover values."""

# `--c0` to `--c7` are what `Series.color` counts.
CSS = (
    """
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1c1f23;--soft:#6a7078;--line:#e4e5e3;
--grid:#efefed;--good:#1a7f4b;--bad:#c2352b;--warn:#9a6700;--badbg:#fdf1ef;--warnbg:#fbf5e6;
--c0:#2f6bd8;--c1:#d9740f;--c2:#1f8f5f;--c3:#8a4fc4;--c4:#c73a6a;--c5:#0f8f9c;--c6:#8a6d1f;
--c7:#767c85}
@media (prefers-color-scheme:dark){:root{--bg:#141618;--card:#1b1e21;--ink:#e6e8ea;--soft:#969da6;
--line:#2d3135;--grid:#25292c;--good:#4cc38a;--bad:#f2796d;--warn:#e0a83a;--badbg:#2c1b1a;--warnbg:#28220f;
--c0:#6da3ff;--c1:#f5a04c;--c2:#55c596;--c3:#b98cf0;--c4:#f07da3;--c5:#4cc6d3;--c6:#cdaa52;
--c7:#a0a7b0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1208px;padding:28px 20px 64px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
h1{font-size:27px;line-height:1.2;margin:2px 0 6px;font-weight:650;letter-spacing:-.01em}
h2{font-size:17px;margin:40px 0 12px;font-weight:620}
p{margin:6px 0}small,.soft{color:var(--soft)}code{font:.88em ui-monospace,Menlo,Consolas,monospace}
header .over{color:var(--soft);font-size:13px}
.lead{font-size:16.5px;max-width:88ch}
.state{display:inline-block;padding:1px 10px;border-radius:99px;font-size:13px;font-weight:600;
border:1px solid currentColor;vertical-align:5px;margin-left:8px;letter-spacing:0}
.done{color:var(--good)}.stopped,.crashed{color:var(--bad)}.preempted{color:var(--warn)}
.running{color:var(--c0)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:18px 22px;
margin:26px 0 0}
.tile{border-top:2px solid var(--line);padding-top:7px}
.tile span{display:block;color:var(--soft);font-size:12.5px}
.tile b{font-size:21px;font-weight:620;letter-spacing:-.01em}
.tile small{display:block;font-size:12.5px;min-height:1.5em}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:14px}
figure{margin:0}
.chart,.picture,.box{background:var(--card);border:1px solid var(--line);border-radius:10px}
.chart{padding:10px 10px 4px;display:flex;flex-direction:column}.chart svg{margin-top:auto}
.box{padding:14px 16px}
figcaption{font-size:13px;color:var(--soft)}.title{color:var(--ink);font-weight:600;font-size:14px}
.title small{font-weight:400;margin-left:4px}.at{font-size:12.5px;margin-left:auto}
.chart figcaption{display:flex;flex-wrap:wrap;gap:0 10px;align-items:baseline}
.keys{flex:1 0 100%;display:flex;flex-wrap:wrap;gap:0 14px;min-height:20px}
.keys.alone{flex:0 0 auto}
.key b{color:var(--ink);font-weight:560}
.key i{display:inline-block;width:12px;height:3px;border-radius:2px;margin-right:5px;
vertical-align:3.5px}
.key i.m{width:2px;height:9px;background:var(--bad);vertical-align:-1px;margin-left:4px}
svg{display:block;width:100%;height:auto}svg text{font-size:11px;fill:var(--soft)}
svg .x{text-anchor:middle}svg .y,svg .note,svg .x.end{text-anchor:end}
svg path{fill:none;vector-effect:non-scaling-stroke}
svg .grid{stroke:var(--grid)}svg .axis{stroke:var(--line)}
svg .level{stroke:var(--soft);stroke-dasharray:4 3}
svg .line{stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}
svg .raw{stroke-width:1;opacity:.3}
svg .mark{stroke:var(--bad);stroke-width:1.6}svg .bad{stroke:var(--bad);stroke-width:1.4}
svg .guide{stroke:var(--soft);opacity:0}
"""
    + "".join(
        f"svg .s{n}{{stroke:var(--c{n})}}svg .dot.s{n}{{fill:var(--c{n});stroke:none}}"
        f"i.s{n}{{background:var(--c{n})}}\n"
        for n in range(8)
    )
    + """
.chips{display:flex;flex-wrap:wrap;gap:3px 18px;font-size:14px}
.fail{background:var(--badbg);border-left:3px solid var(--bad);padding:10px 14px;margin:10px 0;
border-radius:4px}
.left{border-left:3px solid var(--warn);padding:2px 14px;margin:14px 0;color:var(--soft);
font-size:14px}
.warned{background:var(--warnbg);border-color:var(--warn)}
.yes{color:var(--good)}.no{color:var(--bad)}.never{color:var(--warn)}
.scroll{overflow-x:auto;max-height:430px;overflow-y:auto;border:1px solid var(--line);
border-radius:10px;
background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:13.5px}
th,td{padding:5px 14px;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
th{color:var(--soft);font-weight:500;position:sticky;top:0;background:var(--card);
white-space:nowrap;
box-shadow:0 1px 0 var(--line)}
td{overflow-wrap:normal}td code,td.k{white-space:nowrap}td.t{min-width:11em}
td.n,th.n{text-align:right;white-space:nowrap;overflow-wrap:normal}
td img{display:block;max-width:min(100%,450px);max-height:120px;border-radius:3px}
tr:last-child td{border-bottom:0}
details{margin-top:10px}summary{cursor:pointer;color:var(--soft);font-size:14px;margin-bottom:8px}
.pictures{display:grid;grid-auto-flow:dense;
grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:14px}
.picture{padding:10px;min-width:0}.picture.wide{grid-column:1/-1}
.picture>img{display:block;width:100%;border-radius:5px;background:var(--grid)}
.picture>img.small{image-rendering:pixelated}
.strip{display:flex;gap:6px;margin-top:8px;overflow-x:auto}
.strip div{flex:0 1 auto;text-align:center;min-width:44px}
.strip img{display:block;height:54px;max-width:100%;object-fit:cover;border-radius:3px}
.strip span{font-size:11px;color:var(--soft)}
.bar{display:flex;height:16px;border-radius:4px;overflow:hidden;gap:1px;background:var(--line)}
.bar i{display:block;min-width:1px}
.barkeys{display:flex;flex-wrap:wrap;gap:2px 18px;margin-top:8px;font-size:13px;color:var(--soft)}
.barkeys i{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:6px}
.barkeys b{color:var(--ink);font-weight:560}
pre{white-space:pre-wrap;font-size:12.5px;margin:0;padding:12px 14px}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;margin:0;font-size:13.5px}
.facts dt{color:var(--soft)}.facts dd{margin:0;min-width:0}
@media (max-width:520px){body{padding:18px 12px 48px}h1{font-size:22px}.lead{font-size:15.5px}
.tiles{grid-template-columns:1fr 1fr}th,td{padding:5px 9px}}
@media print{.scroll{max-height:none}}
"""
)

# `data-chart` is from `chart._hover_data`: its frame maps between steps and units of the SVG.
SCRIPT = """
for(const chart of document.querySelectorAll('.chart')){
const data=JSON.parse(chart.dataset.chart),[low,high,start,end,width]=data.frame;
const
svg=chart.querySelector('svg'),guide=chart.querySelector('.guide'),at=chart.querySelector('.at');
const shown=[...chart.querySelectorAll('.key b')],last=shown.map(b=>b.textContent);
const nearest=(x,step)=>{let a=0,b=x.length-1;while(b-a>1){const m=(a+b)>>1;x[m]<=step?a=m:b=m}
return step-x[a]<x[b]-step?a:b};
svg.addEventListener('pointermove',event=>{const box=svg.getBoundingClientRect();
const px=(event.clientX-box.left)/box.width*width;
const step=Math.min(high,Math.max(low,low+(px-start)/(end-start)*(high-low)));
let found=step,best=Infinity;
data.series.forEach((line,i)=>{const j=nearest(line.x,step);shown[i].textContent=line.y[j];
if(Math.abs(line.x[j]-step)<best){best=Math.abs(line.x[j]-step);found=line.x[j]}});
at.textContent='step '+found.toLocaleString('en');guide.style.opacity=1;
guide.setAttribute('transform','translate('+(start+(found-low)/(high-low)*(end-start))+',0)')});
svg.addEventListener('pointerleave',()=>{guide.style.opacity=0;at.textContent='';
last.forEach((text,i)=>shown[i].textContent=text)})}
"""
