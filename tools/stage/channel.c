/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
#include "tools/stage/stage.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

sl_job *sl_child_job;

/* Of a question and its answer; of one message. */
static pthread_mutex_t asking, sending = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_asking(void)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&asking, &recursive);
    pthread_mutexattr_destroy(&recursive);
}

/* Without the run there is nobody to say anything to. */
static void transfer(void *bytes, size_t size, bool out)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = out ? send(SL_CHILD_SOCKET, (const char *)bytes + done, size - done, MSG_NOSIGNAL)
                              : recv(SL_CHILD_SOCKET, (char *)bytes + done, size - done, 0);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            _exit(1);
    }
}

void sl_child_send(sl_message *m)
{
    uint8_t head[SL_WIRE_HEAD];
    if (m->failed < 0 || m->body.size > SL_WIRE_MOST) {
        fputs("out of memory, or a message too large for the run\n", stderr);
        _exit(1);
    }
    sl_wire_head(m, head);
    pthread_mutex_lock(&sending);
    transfer(head, sizeof head, true);
    transfer(m->body.data, m->body.size, true);
    pthread_mutex_unlock(&sending);
    sl_message_free(m);
}

void sl_child_receive(sl_message *m)
{
    uint8_t head[SL_WIRE_HEAD];
    uint64_t size;
    *m = (sl_message){0};
    transfer(head, sizeof head, false);
    if (!sl_wire_read_head(head, &m->kind, &size) || sl_buffer_reserve(&m->body, (size_t)size) < 0) {
        fputs("out of memory for a message of the run\n", stderr);
        _exit(1);
    }
    m->body.size = (size_t)size;
    transfer(m->body.data, (size_t)size, false);
}

int sl_child_ask(sl_message *question, sl_message *reply)
{
    pthread_once(&once, make_asking);
    pthread_mutex_lock(&asking);
    sl_child_send(question);
    for (;;) {
        sl_child_receive(reply);
        if (reply->kind == SL_WIRE_REPLY)
            break;
        sl_child_answer(reply);
        sl_message_free(reply);
    }
    pthread_mutex_unlock(&asking);
    const int rc = (int)(int64_t)sl_get(reply);
    const char *line = sl_get_text(reply);
    sl_host *host = &sl_child_job->host;
    if (rc < 0 && line != NULL && host->error[0] == '\0') {
        snprintf(host->error, sizeof host->error, "%s", line);
        host->code = rc;
    }
    return rc;
}

void sl_child_progress(bool now)
{
    static _Atomic double said;
    const double clock = sl_clock();
    if (!now && clock - atomic_load(&said) < 0.1)
        return;
    atomic_store(&said, clock);
    sl_job *job = sl_child_job;
    sl_message m = {.kind = SL_WIRE_PROGRESS};
    char unit[sizeof job->unit];
    pthread_mutex_lock(&job->run->lock);
    memcpy(unit, job->unit, sizeof unit);
    pthread_mutex_unlock(&job->run->lock);
    sl_put(&m, job->done);
    sl_put(&m, job->total);
    sl_put_text(&m, unit[0] != '\0' ? unit : NULL);
    sl_put(&m, atomic_exchange(&job->tokens, 0));
    sl_child_send(&m);
}
