"""The style sheet of the report: light and dark, screen and paper. The colours of the plots are variables here."""

from __future__ import annotations

from console.demo.plots_style import VARIABLES

# Every colour of a plot as it is on a dark page.
_DARK = {
    "ink": "#e8ebef", "muted": "#9aa4af", "grid": "#2c333b", "paper": "#15191e", "alert": "#ff6b6b", "calm": "#7fb0d3",
    "gpu0": "#5db8ee", "gpu1": "#27a583", "gpu2": "#f0a742", "gpu3": "#d874b7", "gpu4": "#b3b55a", "gpu5": "#c08d75", "gpu6": "#9498ea", "gpu7": "#b4bcc4",
    "svc0": "#4fa8ea", "svc1": "#ff8a3d", "svc2": "#c3ccda", "svc3": "#cfae57", "svc4": "#e07fb1", "svc5": "#93c860",
}  # fmt: skip

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main,header.top,footer{max-width:1120px;margin:0 auto;padding:0 24px}
header.top{padding-top:44px;padding-bottom:8px}
.eyebrow{color:var(--muted);font-size:14px;margin:0 0 6px}
h1{font-size:32px;line-height:1.2;letter-spacing:-.015em;margin:0 0 12px;max-width:28em;text-wrap:balance}
h2{font-size:22px;letter-spacing:-.01em;margin:52px 0 4px}
h3{font-size:17px;line-height:1.35;margin:0 0 4px;text-wrap:pretty}
p{margin:0 0 10px;max-width:72ch;overflow-wrap:anywhere}
.lead{font-size:17px}
.quiet,.note{color:var(--muted)}
.note{font-size:14px;max-width:90ch}
a{color:inherit}
nav{font-size:14px;margin-top:14px}
nav a{margin-right:16px;white-space:nowrap}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:26px 0 8px}
.tile,.card,figure{background:var(--paper);border:1px solid var(--grid);border-radius:8px}
.tile{padding:14px 16px 13px}
.tile .what{font-size:13.5px;color:var(--muted);display:flex;justify-content:space-between;gap:8px}
.tile .figure{font-size:27px;line-height:1.25;font-weight:650;letter-spacing:-.02em;margin:1px 0 3px;overflow-wrap:anywhere}
.tile .more{font-size:13.5px;line-height:1.42;color:var(--ink);overflow-wrap:anywhere}
.mark{font-weight:600;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--alert)}
table{border-collapse:collapse;width:100%;font-size:14.5px}
th{font-weight:600;text-align:left;color:var(--muted);font-size:13px}
th,td{padding:7px 10px 7px 0;border-bottom:1px solid var(--grid);vertical-align:top;overflow-wrap:anywhere}
td.n,th.n{text-align:right;padding-right:18px;white-space:nowrap}
td.t{white-space:nowrap;color:var(--muted)}
.wide{overflow-x:auto}
.dot{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:7px}
figure{margin:16px 0 0;padding:18px 20px 8px}
figure svg{display:block;width:100%;height:auto;margin-top:6px}
figure svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif!important}
ol.moments{list-style:none;margin:4px 0 12px;padding:0;font-size:14.5px;columns:2;column-gap:34px}
ol.moments li{break-inside:avoid;display:grid;grid-template-columns:24px 1fr;gap:8px;padding:5px 0;overflow-wrap:anywhere}
ol.moments .number{background:var(--ink);color:var(--paper);border-radius:50%;width:21px;height:21px;font-size:11.5px;
font-weight:600;display:inline-flex;align-items:center;justify-content:center;margin-top:1px}
.cards{columns:2;column-gap:14px;margin-top:14px}
.card{padding:16px 18px;break-inside:avoid;margin-bottom:14px}
.card .kind{font-size:13px;color:var(--muted);margin:0;overflow-wrap:anywhere}
.card h3{font-size:16px;margin-bottom:8px;overflow-wrap:anywhere}
.card h4{font-size:13px;color:var(--muted);font-weight:600;margin:12px 0 2px}
.card ul{margin:0;padding-left:18px;font-size:14.5px;overflow-wrap:anywhere}
.card li{margin:3px 0}
.card p{font-size:14.5px;margin-bottom:6px}
.card table{font-size:14px}.card td{padding:4px 10px 4px 0}.card tr:last-child td{border-bottom:0}
.log{margin-top:12px}
.log label{font-size:14.5px;display:inline-block;margin-bottom:8px}
.log:has(#graver:checked) .calm{display:none}
details{background:var(--paper);border:1px solid var(--grid);border-radius:8px;margin-top:8px}
summary{cursor:pointer;padding:10px 16px;overflow-wrap:anywhere}
summary .last{display:block;color:var(--muted);font-size:14px}
.card details{margin:4px 0 0;border:0;background:none}.card summary{padding:4px 0;font-size:14px;color:var(--muted)}
.card .inner{padding:4px 0 0}
details table{font-size:13.5px}
details .inner{padding:0 16px 12px}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
footer{margin-top:56px;padding-top:18px;padding-bottom:48px;border-top:1px solid var(--grid);font-size:14px}
footer dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0}
footer dt{color:var(--muted)}footer dd{margin:0;overflow-wrap:anywhere}
@media(max-width:900px){.tiles{grid-template-columns:repeat(2,1fr)}.cards{columns:1}ol.moments{columns:1}}
@media(max-width:520px){.tiles{grid-template-columns:1fr}h1{font-size:25px}main,header.top,footer{padding-left:14px;
padding-right:14px}figure{padding:14px 10px 6px}.wide table{min-width:640px}figure .plot{overflow-x:auto}figure svg{min-width:760px}}
@media print{body{background:#fff;font-size:12px}nav,.log label{display:none}figure,.tile,.card,details{break-inside:avoid}
h2{break-after:avoid}main,header.top,footer{max-width:none;padding:0}}
"""


def style_sheet() -> str:
    """The whole style sheet."""
    light = "".join(f"--{name}:{colour};" for colour, name in VARIABLES.items())
    dark = "".join(f"--{name}:{colour};" for name, colour in _DARK.items())
    return (
        f":root{{color-scheme:light dark;{light}--page:#f5f6f8;--good:#0b7350}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}--page:#0e1115;--good:#3fbf92}}}}{_RULES}"
    )
