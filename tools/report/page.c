/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/page.h"

#include "core/base/utf8.h"

#include <string.h>

static void put(FILE *out, unsigned char c)
{
    switch (c) {
    case '&':
        fputs("&amp;", out);
        break;
    case '<':
        fputs("&lt;", out);
        break;
    case '>':
        fputs("&gt;", out);
        break;
    case '"':
        fputs("&quot;", out);
        break;
    case '\'':
        fputs("&#39;", out);
        break;
    default:
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            fputs("\xEF\xBF\xBD", out);
        else
            fputc(c, out);
    }
}

static void put_all(FILE *out, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const size_t good = sl_utf8_check(text + at, size - at);
        for (size_t i = 0; i < good; i++)
            put(out, (unsigned char)text[at + i]);
        at += good;
        if (at < size) { /* a byte that is no UTF-8 */
            fputs("\xEF\xBF\xBD", out);
            at++;
        }
    }
}

void rp_text(FILE *out, const char *text)
{
    put_all(out, text, strlen(text));
}

void rp_text_cut(FILE *out, const char *text, size_t most)
{
    size_t size = strlen(text);
    const bool cut = size > most;
    if (cut)
        for (size = most; size > 0 && ((unsigned char)text[size] & 0xC0) == 0x80;)
            size--;
    put_all(out, text, size);
    if (cut)
        fputs("…", out);
}

void rp_printf(FILE *out, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rp_text(out, text);
}

void rp_page_begin(FILE *out, const char *title)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n<title>",
          out);
    rp_text(out, title);
    fputs("</title>\n<style>\n", out);
    fputs(rp_style, out);
    fputs("</style>\n</head>\n<body>\n<main>\n", out);
}

void rp_page_end(FILE *out)
{
    fputs("</main>\n<footer>Written by <code>sluice report</code> " SLUICE_VERSION
          ". One file: no script, nothing loaded from elsewhere.</footer>\n</body>\n</html>\n",
          out);
}

void rp_section_begin(FILE *out, const char *id, const char *title)
{
    fprintf(out, "<section aria-labelledby=\"%s\">\n<h2 id=\"%s\">", id, id);
    rp_text(out, title);
    fputs("</h2>\n", out);
}

void rp_section_end(FILE *out)
{
    fputs("</section>\n", out);
}

void rp_details_begin(FILE *out, const char *summary)
{
    fputs("<details><summary>", out);
    rp_text(out, summary);
    fputs("</summary>\n", out);
}

void rp_details_end(FILE *out)
{
    fputs("</details>\n", out);
}
