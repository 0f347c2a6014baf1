/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The page: HTML written to a FILE (a growing memory stream; errors are looked for once, at its end). No function here
 * writes text of a run unescaped; the page forbids scripts and network by its own Content-Security-Policy as well.
 */
#ifndef RP_PAGE_H
#define RP_PAGE_H

#include <stdio.h>
#include "tools/report/data.h"

/* Text as HTML: & < > " ' escaped, control characters shown as U+FFFD but for newline and tab. */
void rp_text(FILE *, const char *);
/* The same, of at most `most` bytes, ended with … where it was longer; cut between characters. */
void rp_text_cut(FILE *, const char *, size_t most);
void rp_printf(FILE *, const char *format, ...) SLUICE_PRINTF(2, 3); /* formatted, then escaped */

/* A number for reading: 1,234 or 0.0123 or 1.2e-06. */
enum { RP_NUMBER = 48 };
const char *rp_number_text(double, char text[RP_NUMBER]);
/* "58.3 %" */
const char *rp_percent_text(double, char text[RP_NUMBER]);
/* "24.9 s", "3:05 min", "1:12:09 h" */
const char *rp_duration_text(double seconds, char text[RP_NUMBER]);
/* Shares are shown as percentages. */
bool rp_is_share(const char *metric);

void rp_page_begin(FILE *, const char *title);
void rp_page_end(FILE *);
/* A heading with an anchor, and the end of its section. */
void rp_section_begin(FILE *, const char *id, const char *title);
void rp_section_end(FILE *);
/* Something to open: `open` shows it from the start. */
void rp_details_begin(FILE *, const char *summary);
void rp_details_end(FILE *);

/* style.c */
extern const char rp_style[], rp_drawing_style[];

/* One run's page: all its sections. */
void rp_write_run(FILE *, rp_run *, const char *title);
/* Several runs beside each other. */
int rp_write_comparison(FILE *, rp_run *const *, size_t count, const char *title);

/* Parts of a run's page. */
void rp_write_results(FILE *, const rp_run *); /* results.c */
void rp_write_samples(FILE *, rp_run *);       /* samples.c */
void rp_write_graph(FILE *, const rp_run *);   /* graph.c */

/* The plan as an SVG element; alone: with all that a file of its own needs. Negative when out of memory. */
int rp_draw_plan(FILE *, const sl_plan *, bool alone);
void rp_write_timing(FILE *, const rp_run *); /* timing.c */

#endif
