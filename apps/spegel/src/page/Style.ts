/** The style of the page: light and dark, from 320 px on. Text has a contrast ratio of at least 4.5:1. */
export const style =
  `:root{color-scheme:light dark;--text:#1b2130;--quiet:#566074;--ground:#f6f7f9;--card:#fff;--line:#dfe3ea;
--yes:#17693a;--no:#a8231c;--accent:#1f5fbf;--self:#e6eefb}
@media(prefers-color-scheme:dark){:root{--text:#e6e9f0;--quiet:#a3adbf;--ground:#12151c;--card:#1a1f29;--line:#2d3442;
--yes:#5fcf8e;--no:#ff8f85;--accent:#82b1ff;--self:#22304a}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.5rem}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:80rem;padding:0 1.25rem 3rem;color:var(--text);background:var(--ground)}
header{display:flex;flex-wrap:wrap;align-items:baseline;justify-content:space-between;gap:0 1rem;padding-top:1rem}
h1{font-size:1.35rem;margin:0}h1 small{color:var(--quiet);font-weight:400;font-size:1rem}
h2{font-size:1.1rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:.2rem 0 .4rem;overflow-wrap:anywhere}
h3 small{font-weight:400;color:var(--quiet);margin-left:.4rem}
p{margin:.4rem 0;overflow-wrap:anywhere}a{color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}
#live{margin:0;color:var(--quiet)}#live.on::before{content:"";display:inline-block;width:.6rem;height:.6rem;border-radius:50%;
background:var(--yes);margin-right:.4rem}
nav{position:sticky;top:0;z-index:1;display:flex;gap:.2rem 1.1rem;flex-wrap:wrap;padding:.6rem 0;background:var(--ground);border-bottom:1px solid var(--line)}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
.skip{position:absolute;left:-100rem}.skip:focus{position:static}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap;user-select:none}
.yes{color:var(--yes)}.no{color:var(--no)}.quiet,.figure.quiet{color:var(--quiet)}
section>div,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:.8rem;margin:1rem 0}
.card dt{color:var(--quiet)}.card dd{margin:0;overflow-wrap:anywhere}.card .figure{font-size:1.6rem;line-height:1.3;font-weight:600;font-variant-numeric:tabular-nums}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}code{overflow-wrap:anywhere}
pre{overflow-x:auto;margin:.4rem 0;padding:.6rem .8rem;border:1px solid var(--line);border-radius:6px;background:var(--ground)}
.digest{display:inline-block;max-width:21ch;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;vertical-align:bottom;user-select:all}
.whole{user-select:all}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}th{color:var(--quiet);font-weight:600;white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
progress{appearance:none;border:0;height:.7rem;width:100%;border-radius:.35rem;overflow:hidden;background:var(--line);vertical-align:middle}
progress::-webkit-progress-bar{background:var(--line)}progress::-webkit-progress-value{background:var(--accent)}
progress::-moz-progress-bar{background:var(--accent)}td progress{width:8rem}
.blobs{list-style:none;margin:0;padding:0}h3:not(:first-child){margin-top:1rem}.blobs li{padding:.5rem 0;border-top:1px solid var(--line)}
.blob{display:grid;grid-template-columns:21ch 1fr 15rem;gap:.2rem 1rem;align-items:center}
.amount{text-align:right;font-variant-numeric:tabular-nums;color:var(--quiet)}
.tree{display:flex;flex-wrap:wrap;align-items:center;gap:.3rem .4rem;margin:.4rem 0 0}
.tree .node{border:1px solid var(--line);border-radius:1rem;padding:0 .6rem}.tree .self{background:var(--self);border-color:var(--accent)}
.tree .stalled{color:var(--no)}.arrow{color:var(--quiet)}
.requests{list-style:none;margin:0;padding:0}.requests>li{border-top:1px solid var(--line)}.requests>li:first-child{border-top:0}
.heading{color:var(--quiet);font-weight:600}
summary,.heading{display:grid;grid-template-columns:1rem 5.5rem 4.5rem minmax(10rem,2fr) minmax(8rem,1fr) 4.5rem 6rem 6rem;gap:.2rem .6rem;padding:.35rem 0}summary{cursor:pointer;list-style:none}
summary::before{content:"▸";color:var(--quiet)}details[open]>summary::before{content:"▾"}
summary::-webkit-details-marker{display:none}summary:hover{background:var(--self)}
.what,.by{overflow-wrap:anywhere}.registry{color:var(--quiet)}
details[open]{padding-bottom:.8rem}details>:not(summary){margin-left:1.6rem}.number:is(td,th){padding-right:1.6rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:.4rem 1rem;margin:.3rem 0 .6rem}
.facts div:first-child{grid-column:1/-1}.facts dt{color:var(--quiet);font-size:.9em}.facts dd{margin:0;overflow-wrap:anywhere}
form{display:flex;flex-wrap:wrap;gap:.4rem .6rem;align-items:center}label{color:var(--quiet)}
input,button{font:inherit;color:inherit;padding:.35rem .7rem;border:1px solid var(--quiet);border-radius:6px;background:var(--ground)}
input{flex:1 1 16rem;min-width:0}button{background:var(--accent);border-color:var(--accent);color:var(--card);cursor:pointer}
::placeholder{color:var(--quiet);opacity:1}
@media(max-width:46rem){body{padding:0 .8rem 2rem}section>div,.card{padding:.7rem .8rem}
.cards{grid-template-columns:1fr 1fr;gap:.6rem}.card .figure{font-size:1.25rem}
nav{flex-wrap:nowrap;overflow-x:auto}nav a{white-space:nowrap}
table,tbody,tr,td{display:block}thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
tr{padding:.5rem 0;border-bottom:1px solid var(--line)}tr:last-child{border-bottom:0}
td,td.number{display:grid;grid-template-columns:7.5rem minmax(0,1fr);gap:.6rem;padding:.1rem 0;border:0;text-align:left;white-space:normal}
td::before{content:attr(data-label);color:var(--quiet)}
.blob{grid-template-columns:1fr auto}.blob progress{grid-row:2;grid-column:1/-1}
summary{display:flex;flex-wrap:wrap;gap:.1rem .8rem}.heading{display:none}summary::before{width:1rem}
.method,.by{flex:1}.what{order:1;flex:0 0 100%}.by{order:2}.size{order:3}.took{order:4}
details>:not(summary){margin-left:0}.facts{grid-template-columns:1fr}}
`
