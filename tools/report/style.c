/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The page's style. Colours of curves are Okabe and Ito's, which stay apart for colour-blind readers, darker on light
 * ground and lighter on dark; curves differ by dash and mark as well.
 */
#include "tools/report/page.h"

/* Shared by the page and a drawing that stands alone. */
#define COLOURS                                                                                                      \
    ":root{--ground:#fff;--raised:#f6f7f9;--ink:#1c2128;--soft:#59636e;--line:#d8dde3;--good:#00704f;--bad:#b3400a;" \
    "--warn:#fff4d6;--warn-ink:#5c4300;"                                                                             \
    "--s0:#0068a8;--s1:#c75000;--s2:#00805c;--s3:#a9487f;--s4:#8a6a00;--s5:#3a86b8;--s6:#5b5bd6;--s7:#59636e}\n"     \
    "@media (prefers-color-scheme:dark){:root{--ground:#14171b;--raised:#1c2026;--ink:#e4e8ec;--soft:#9aa4af;"       \
    "--line:#343b44;--good:#4cc79f;--bad:#ff9a62;--warn:#3a2f10;--warn-ink:#f3d98b;"                                 \
    "--s0:#5ab4ea;--s1:#f08a4b;--s2:#3cc39a;--s3:#dd92bd;--s4:#e0b53c;--s5:#8fcdf2;--s6:#a9a6ff;--s7:#a7b0ba}}\n"
#define DRAWN_TEXT "svg text{fill:var(--soft);font-size:11px;font-family:inherit}\n"
#define DRAWING                                                                            \
    ".box{fill:var(--raised);stroke:var(--line)}\n"                                        \
    ".frame{fill:none;stroke:var(--line);stroke-dasharray:none}\n"                         \
    ".edge{fill:none;stroke:var(--soft);stroke-width:1.2}\n"                               \
    ".after{stroke-dasharray:4 3}\n"                                                       \
    ".rail{fill:none;stroke-width:1.6}\n"                                                  \
    ".pill{stroke:none}\n"                                                                 \
    "svg .name{fill:var(--ink);font-size:12px;font-weight:600}\n"                          \
    "svg .title{fill:var(--ink);font-size:13px;font-weight:650}\n"                         \
    "svg .label{fill:var(--ground);font-size:11px;font-weight:600}\n"                      \
    ".f0{fill:var(--s0)}.f1{fill:var(--s1)}.f2{fill:var(--s2)}.f3{fill:var(--s3)}"         \
    ".f4{fill:var(--s4)}.f5{fill:var(--s5)}.f6{fill:var(--s6)}.f7{fill:var(--s7)}\n"       \
    ".c0{stroke:var(--s0)}.c1{stroke:var(--s1)}.c2{stroke:var(--s2)}.c3{stroke:var(--s3)}" \
    ".c4{stroke:var(--s4)}.c5{stroke:var(--s5)}.c6{stroke:var(--s6)}.c7{stroke:var(--s7)}\n"

const char rp_style[] = COLOURS
    "*{box-sizing:border-box}\n"
    "html{-webkit-text-size-adjust:100%}\n"
    "body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,"
    "\"Helvetica Neue\",\"Liberation Sans\",Arial,sans-serif}\n"
    "main,footer{max-width:1120px;margin:0 auto;padding:0 20px}\n"
    "footer{padding-top:12px;padding-bottom:32px;color:var(--soft);font-size:13px}\n"
    "header{padding:32px 0 8px}\n"
    "h1{font-size:30px;line-height:1.2;margin:0 0 6px;font-weight:650;overflow-wrap:anywhere}\n"
    "h2{font-size:20px;margin:44px 0 12px;font-weight:620}\n"
    "h3{font-size:14px;margin:0;font-weight:600}\n"
    "p{margin:8px 0}\n"
    ".facts{color:var(--soft);display:flex;flex-wrap:wrap;gap:2px "
    "18px;margin:0;padding:0;list-style:none;font-size:14px}\n"
    ".facts li{overflow-wrap:anywhere}\n"
    ".note{background:var(--warn);color:var(--warn-ink);border-radius:8px;padding:10px 14px;margin:14px 0}\n"
    ".note ul{margin:4px 0;padding-left:20px}\n"
    ".note li{overflow-wrap:anywhere}\n"
    ".lead{font-size:17px}\n"
    ".soft{color:var(--soft);font-size:14px}\n"
    ".scroll+.scroll{margin-top:1.2rem}\n"
    ".scroll{overflow-x:auto;max-width:100%}\n"
    "table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;min-width:100%}\n"
    "th,td{padding:6px 14px 6px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);"
    "vertical-align:baseline}\n"
    "th:first-child,td:first-child,.left{text-align:left}\n"
    "th{font-weight:600;color:var(--soft);vertical-align:bottom}\n"
    "tbody th{font-weight:500;color:var(--ink)}\n"
    ".charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:26px 28px}\n"
    "figure{margin:0;min-width:0;break-inside:avoid}\n"
    "figcaption{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 14px;margin-bottom:4px}\n"
    ".key{font-size:12.5px;color:var(--soft);white-space:nowrap;display:inline-flex;align-items:center;gap:5px}\n"
    ".key svg{width:22px;height:10px;flex:none}\n"
    "svg{display:block;overflow:visible}\n"
    ".chart{width:100%;height:auto}\n" DRAWN_TEXT ".grid{stroke:var(--line);stroke-width:1}\n"
    ".mark{stroke:var(--line);stroke-width:1;stroke-dasharray:2 3}\n"
    ".curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".raw{fill:none;stroke-width:1;opacity:.35;stroke-linejoin:round}\n"
    ".bar{stroke-width:1.4}\n"
    ".band{opacity:.16;stroke:none}\n"
    "details{margin:6px 0}\n"
    "summary{cursor:pointer;color:var(--soft);font-size:13px}\n"
    "summary:hover{color:var(--ink)}\n"
    "section>details>summary{font-size:15px}\n"
    "details .scroll{margin-top:6px;max-height:420px;overflow:auto}\n"
    "pre{background:var(--raised);border-radius:8px;padding:12px 14px;overflow:auto;font-size:13px;line-height:1.45;"
    "margin:8px 0;max-height:520px}\n"
    "code,pre,.answer,.prompt{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,\"DejaVu Sans Mono\",monospace}\n"
    ".sample{border-top:1px solid var(--line);padding:12px 0;break-inside:avoid}\n"
    ".prompt{margin:0 0 8px;font-size:14px;white-space:pre-wrap;overflow-wrap:anywhere}\n"
    ".pair{display:grid;grid-template-columns:1fr 1fr;gap:8px 24px}\n"
    ".pair ul{list-style:none;margin:2px 0 0;padding:0}\n"
    ".pair li{display:flex;gap:8px;font-size:14px;padding:1px 0}\n"
    ".answer{white-space:pre-wrap;overflow-wrap:anywhere;min-width:0}\n"
    ".sign{flex:none;width:1.1em;font-weight:700}\n"
    ".right{color:var(--good)}\n"
    ".wrong{color:var(--bad)}\n"
    ".meter{background:var(--raised);border-radius:3px;height:12px;min-width:90px;width:100%;display:flex;overflow:"
    "hidden}\n"
    ".meter i{display:block;height:100%}\n"
    ".busy{background:var(--s0)}\n"
    ".waiting{background:var(--s0);opacity:.3}\n" DRAWING
    "@media (max-width:560px){main,footer{padding-left:14px;padding-right:14px}header{padding-top:20px}"
    "h1{font-size:24px}h2{margin-top:34px}.pair{grid-template-columns:1fr}}\n"
    "@media print{:root{--ground:#fff;--raised:#f3f4f6;--ink:#000;--soft:#444;--line:#bbb}"
    "body{font-size:11pt}main,footer{max-width:none}.scroll,pre{overflow:visible;max-height:none}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}section{break-inside:auto}h2{break-after:avoid}"
    "details:not([open]){display:none}}\n";

const char rp_drawing_style[] = COLOURS DRAWN_TEXT DRAWING
    "svg{background:var(--ground);font-family:system-ui,\"Segoe UI\",\"Liberation Sans\",Arial,sans-serif}\n";
