/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast streams are written and read, beside libzstd on the same bytes in the same run: processor time, best of
 * some rounds. doc/results/streams.md has figures.
 *
 *     bench-stream [FOLDER [MEGABYTES]]
 *
 * The records: a prompt of 1 KB and five candidates of 200 tokens with text, the sampler's log-probabilities and the
 * reference's, two judges, two pairs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "core/stream/stream.h"
#include <sluice/random.h>

enum { POOL = 1000, CANDIDATES = 5, TOKENS = 200, WORDS = 4096, ROUNDS = 5 };

static sl_record *pool[POOL];
static uint64_t drawn;

static double uniform(void)
{
    const uint64_t key[2] = {1, 2}, counter[2] = {drawn++, 0};
    uint32_t out[4];
    sluice_philox(key, counter, out);
    return sluice_uniform_double(out[0], out[1]);
}

static void need(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "bench-stream: %s failed\n", what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Words by Zipf's law, as in text. */
static uint32_t word(void)
{
    return (uint32_t)(pow(WORDS, uniform()) - 1);
}

static void put_word(char *text, size_t *size, uint32_t w)
{
    static const char letters[] = "etaoinshrdlucmfwypvbgkqjxz";
    for (uint32_t v = w + 3; v; v /= 13)
        text[(*size)++] = letters[v % 26];
    text[(*size)++] = ' ';
    text[*size] = '\0';
}

static void make_pool(void)
{
    char text[8192];
    uint32_t tokens[TOKENS];
    float logprobs[TOKENS], reference[TOKENS];
    for (size_t i = 0; i < POOL; i++) {
        size_t size = 0;
        pool[i] = sl_record_new();
        need(pool[i], "memory");
        sluice_record *r = sl_record_public(pool[i]);
        while (size < 1024)
            put_word(text, &size, word());
        need(sluice_record_set_prompt(r, text) == SLUICE_OK, "prompt");
        for (size_t c = 0; c < CANDIDATES; c++) {
            size = 0;
            for (size_t t = 0; t < TOKENS; t++) {
                tokens[t] = word();
                logprobs[t] = (float)(log(uniform()) * 1.5);
                reference[t] = logprobs[t] + (float)(uniform() - 0.5) / 10;
                put_word(text, &size, tokens[t]);
            }
            need(sluice_record_add_candidate(r, &(sluice_candidate){text, tokens, logprobs, TOKENS, SLUICE_FINISH_STOP,
                                                                    -1, "t=0.8 top_p=0.95"}) == SLUICE_OK &&
                     sluice_record_set_logps(r, c, "policy@0", reference, TOKENS) == SLUICE_OK &&
                     sluice_record_set_score(r, "implicit", c, (float)uniform()) == SLUICE_OK &&
                     sluice_record_set_score(r, "verifier", c, uniform() < 0.5) == SLUICE_OK,
                 "candidate");
        }
        for (uint32_t p = 0; p < 2; p++)
            need(sluice_record_add_pair(r, &(sluice_pair){p, p + 2, uniform(), 1, NAN}) == SLUICE_OK, "pair");
    }
}

static sl_record *record_at(size_t i)
{
    char id[32];
    snprintf(id, sizeof id, "record-%08zu", i);
    need(sluice_record_set_id(sl_record_public(pool[i % POOL]), id) == SLUICE_OK, "id");
    return pool[i % POOL];
}

static double write_stream(const char *path, size_t count, double *closing)
{
    char error[512];
    sl_stream_writer *w;
    const sl_stream_info info = {.schema = SL_STREAM_SCHEMA, .stage = "bench"};
    double start = now();
    need(sl_stream_create(path, &info, &w, error, sizeof error) == SLUICE_OK, error);
    for (size_t i = 0; i < count; i++)
        need(sl_stream_append(w, record_at(i), i) == SLUICE_OK, "append");
    double end = now();
    need(sl_stream_close(w) == SLUICE_OK, "close");
    *closing = now() - end;
    sl_stream_writer_free(w);
    return end - start;
}

static double read_stream(const char *path, size_t count)
{
    char error[512];
    sl_stream_reader *r;
    sl_record *record;
    size_t records = 0;
    double start = now();
    need(sl_stream_open(path, false, &r, error, sizeof error) == SLUICE_OK, error);
    for (; sl_stream_next(r, &record) == SLUICE_OK; records++)
        sl_record_free(record);
    need(records == count, "reading");
    sl_stream_reader_close(r);
    return now() - start;
}

/* What `zstd -3` does on one thread: its default parameters for an unknown length, a checksum, and writing as it goes.
 */
static double zstd_write(const char *path, const sl_buffer *raw)
{
    double start = now();
    ZSTD_CCtx *context = ZSTD_createCCtx();
    FILE *file = fopen(path, "wb");
    const size_t room = ZSTD_CStreamOutSize(), step = ZSTD_CStreamInSize();
    uint8_t *out_bytes = malloc(room);
    need(context && file && out_bytes, path);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 3);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    for (size_t at = 0, left = 1; at < raw->size || left;) {
        const size_t size = raw->size - at < step ? raw->size - at : step;
        ZSTD_inBuffer in = {raw->data + at, size, 0};
        const ZSTD_EndDirective end = at + size == raw->size ? ZSTD_e_end : ZSTD_e_continue;
        do {
            ZSTD_outBuffer out = {out_bytes, room, 0};
            left = ZSTD_compressStream2(context, &out, &in, end);
            need(!ZSTD_isError(left) && fwrite(out_bytes, 1, out.pos, file) == out.pos, "compressing");
        } while (in.pos < in.size || (end == ZSTD_e_end && left));
        at += size;
    }
    need(fclose(file) == 0, path);
    ZSTD_freeCCtx(context);
    free(out_bytes);
    return now() - start;
}

/* What `zstd -d` does before it writes. */
static double zstd_read(const char *path, size_t expected)
{
    double start = now();
    ZSTD_DCtx *context = ZSTD_createDCtx();
    FILE *file = fopen(path, "rb");
    const size_t step = ZSTD_DStreamInSize(), room = ZSTD_DStreamOutSize();
    uint8_t *in_bytes = malloc(step), *out_bytes = malloc(room);
    need(context && file && in_bytes && out_bytes, path);
    size_t total = 0;
    for (size_t size; (size = fread(in_bytes, 1, step, file)) > 0;) {
        ZSTD_inBuffer in = {in_bytes, size, 0};
        while (in.pos < in.size) {
            ZSTD_outBuffer out = {out_bytes, room, 0};
            need(!ZSTD_isError(ZSTD_decompressStream(context, &out, &in)), "decompressing");
            total += out.pos;
        }
    }
    need(total == expected, "decompressing");
    fclose(file);
    ZSTD_freeDCtx(context);
    free(in_bytes);
    free(out_bytes);
    return now() - start;
}

static double best(double *kept, double seconds)
{
    return *kept = *kept == 0 || seconds < *kept ? seconds : *kept;
}

static long size_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    need(file && fseek(file, 0, SEEK_END) == 0, path);
    long size = ftell(file);
    fclose(file);
    return size;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : ".";
    const double megabytes = argc > 2 ? atof(argv[2]) : 128;
    char stream[4096], plain[4096];
    snprintf(stream, sizeof stream, "%s/bench-stream.zst", folder);
    snprintf(plain, sizeof plain, "%s/bench-plain.zst", folder);
    make_pool();

    sl_buffer raw = {0};
    size_t count = 0;
    double encoding = now();
    for (; (double)raw.size < megabytes * 1e6; count++)
        need(sl_record_encode(record_at(count), &raw) == SLUICE_OK, "encoding");
    encoding = now() - encoding;
    const double mb = (double)raw.size / 1e6;
    double times[5] = {0}, closing = 0, unused;
    for (int round = 0; round < ROUNDS; round++) { /* in turn, so that a busy machine slows all alike */
        best(&times[0], zstd_write(plain, &raw));
        best(&times[1], write_stream(stream, count, &unused));
        best(&closing, unused);
        best(&times[2], zstd_read(plain, raw.size));
        best(&times[3], zstd_read(stream, raw.size));
        best(&times[4], read_stream(stream, count));
    }
    printf("%zu records, %.0f MB as CBOR (%.1f KB a record), zstd %s\n", count, mb, mb * 1e3 / (double)count,
           ZSTD_versionString());
    printf("  encoding records alone            %7.0f MB/s\n", mb / encoding);
    printf("  zstd -3, one frame                %7.0f MB/s   ratio %.3f\n", mb / times[0],
           (double)raw.size / (double)size_of(plain));
    printf("  writing the stream                %7.0f MB/s   ratio %.3f   %.0f %% of zstd -3 (closing: %.0f ms)\n",
           mb / times[1], (double)raw.size / (double)size_of(stream), 100 * times[0] / times[1], closing * 1e3);
    printf("  zstd -d, one frame                %7.0f MB/s\n", mb / times[2]);
    printf("  zstd -d of the stream             %7.0f MB/s\n", mb / times[3]);
    printf("  reading the stream's records      %7.0f MB/s   %.0f %% of zstd -d\n", mb / times[4],
           100 * times[2] / times[4]);
    unlink(stream);
    unlink(plain);
    sl_buffer_free(&raw);
    for (size_t i = 0; i < POOL; i++)
        sl_record_free(pool[i]);
    return 0;
}
