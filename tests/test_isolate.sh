#!/bin/sh
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
# A stage in a process of its own: the same bytes, and a crash, a hang, an exit, a flood of memory or rubbish in it costs at
# most a record. A crash in the run's own process is told, and the run goes on. Signals leave nothing behind.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
sluice=$SLUICE_BUILD/sluice
cd "$work" || exit 1
mkdir -m 755 plugins && cp "$SLUICE_BUILD"/tests/plugins/run_stages.so "$SLUICE_BUILD"/tests/plugins/wild.so plugins/ || exit 1
SLUICE_PLUGIN_PATH=$work/plugins
SLUICE_STORE=off # what one run made must not save another from its crash
export SLUICE_PLUGIN_PATH SLUICE_STORE
ulimit -c 0

ok() { passed=$((passed + 1)); }
bad() {
    failed=$((failed + 1))
    echo "not ok: $1"
    sed 's/^/    /' out 2>/dev/null | tail -n 15
}
skip() { skipped=$((skipped + 1)); echo "skipped: $1"; }
# sets S=V …: as many --set S=V
sets() { for s; do printf -- '--set %s ' "$s"; done; }
# same A B: two runs' streams, metrics and models
same() {
    if diff -r -x log.txt -x timing.jsonl -x environment.txt -x .lock -x pipeline.cfg -x '*.quarantine.zst' "$1" "$2" >difference; then ok; else bad "$1 and $2 differ: $(cat difference)"; fi
}
# exits CODE OUT FILE SETTING…: runs it in OUT, stage by stage
exits() {
    code=$1 to=$2 file=$3
    shift 3
    "$sluice" run "$file" --quiet --out "$to" $(sets "$@") >out 2>&1 </dev/null
    got=$?
    [ $got = "$code" ] && ok || bad "sluice run $file $*: exit code $got, not $code"
}
says() { grep -q -e "$1" "${2:-out}" && ok || bad "no '$1' in ${2:-what it said}"; }
refuses() { # WORDS SETTING…
    words=$1
    shift
    "$sluice" check one.cfg $(sets "$@") >out 2>&1
    [ $? = 2 ] && [ "$(wc -l <out)" = 2 ] && grep -q -e "$words" out && ok || bad "check $*: not one mistake with '$words'"
}
# none NAME: no process of this name is left
none() {
    tries=0
    while left=$(ps -eo pid=,ppid=,args= | grep -e "$1" | grep -v grep); do
        [ $((tries += 1)) = 100 ] && { bad "left behind: $left"; return; }
        sleep 0.1
    done
    ok
}
# await COMMAND…: until it succeeds, ten seconds at most
await() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        [ $((tries += 1)) = 100 ] && return 1
        sleep 0.1
    done
}

# --- the same bytes, stage by stage of every shape
cat >chain.cfg <<'END'
sluice = 1; name = "chain"; seed = 7;
phases = ( { name = "main"; repeat = 2; stages = (
  { name = "numbers"; use = "test/count"; records = 300; },
  { name = "mark"; use = "test/mark"; from = "numbers"; value = 2.5; drop = 4; },
  { name = "share"; use = "test/share"; from = "mark"; },
  { name = "batch"; use = "wild/batch"; from = "share"; },
  { name = "run"; use = "wild/run"; from = "share"; },
  { name = "turn"; use = "test/backwards"; from = "run"; },
  { name = "hold"; use = "test/hold"; from = "turn"; },
  { name = "list"; use = "test/list"; from = "hold"; path = "list.txt"; }
); } );
END
all='numbers mark share batch run turn hold list'
exits 0 plain chain.cfg
cp list.txt list-plain.txt
exits 0 isolated chain.cfg $(for s in $all; do echo "$s.isolate=true"; done)
same plain isolated
cmp -s list.txt list-plain.txt && ok || bad "a sink in its own process writes another file"
says "stage 'run': saw 225 records" isolated/log.txt
grep -q '"stage":"run".*"tokens":675' isolated/timing.jsonl && ok || bad "tokens are not counted"
exits 0 plain chain.cfg $(for s in $all; do echo "$s.isolate=true"; done)
"$sluice" run chain.cfg --out plain $(for s in $all; do echo "--set $s.isolate=true"; done) >out 2>&1
[ "$(grep -c reused out)" = 16 ] && ok || bad "what was made without isolate is not used again with it"
exits 0 limited chain.cfg mark.isolate=true batch.isolate=true batch.seccomp=true mark.seccomp=true
same plain limited

# --- models: sampling, judging, ranking, averaging, evaluating; and what is refused
quick="$SLUICE_SOURCE/pipelines/quickstart.cfg"
few="prompts.count=64 control-prompts.count=16 start-questions.count=40 questions.count=40 control-questions.count=40 phases.align.repeat=1 phases.control.repeat=1"
if [ -f "$SLUICE_BUILD/plugins/evaluator.so" ] && [ -f "$SLUICE_BUILD/plugins/model.so" ]; then
    exits 0 quick-plain "$quick" $few
    names=$("$sluice" check "$quick" 2>/dev/null | awk '/^  stage/ { inside = 1; next } /^$/ { inside = 0 } inside && $2 != "trainer" { print $1 }')
    exits 0 quick-isolated "$quick" $few $(for s in $names; do echo "$s.isolate=true"; done)
    same quick-plain quick-isolated
    [ "$(grep -c 'isolate = true' quick-isolated/pipeline.cfg)" -ge 8 ] && ok || bad "hardly a stage was isolated: $names"
    "$sluice" check "$quick" --set train.isolate=true >out 2>&1
    grep -q "stage 'train': 'trainer' cannot run in a process of its own" out && ok || bad "a trainer is isolated"
else
    skip "no model runtime"
fi

# --- what goes wrong in it
cat >one.cfg <<'END'
sluice = 1; name = "one"; seed = 7;
phases = ( { name = "main"; stages = (
  { name = "numbers"; use = "test/count"; records = 100; },
  { name = "wild"; use = "wild/one"; from = "numbers"; isolate = true; },
  { name = "after"; use = "test/mark"; from = "wild"; }
); } );
END
sed 's,wild/one,wild/batch,' one.cfg >batch.cfg
sed 's,wild/one,wild/run,' one.cfg >drive.cfg
sed 's,isolate = true;,isolate = true; limits = { memory = "64M"; seconds = 0.5; };,' one.cfg >limits.cfg
sed 's,memory = "64M"; ,,' limits.cfg >hang.cfg
refuses "cannot run in a process of its own" wild.use=wild/bound
refuses "'on_crash' is \"skip-records\"; .* did you mean 'skip-record'" wild.on_crash=skip-records
refuses "skip-record.* is not possible with 'wild/run'" wild.use=wild/run wild.on_crash=skip-record
refuses "skip-record.* is not possible with 'test/count'" numbers.isolate=true numbers.on_crash=skip-record
refuses "add isolate = true" after.on_crash=retry
refuses "'isolate' is a string" wild.isolate=yes
sed 's,"64M",lots,; s,lots,"lots",' limits.cfg >wrong.cfg
"$sluice" check wrong.cfg >out 2>&1
[ $? = 2 ] && says "no size of 16M or more"
sed 's,seconds = 0.5,second = 1,' limits.cfg >wrong.cfg
"$sluice" check wrong.cfg >out 2>&1
[ $? = 2 ] && says "did you mean 'seconds'"

exits 0 one one.cfg wild.isolate=false
for how in segv abort fpe overflow exit; do
    exits 1 stop-$how one.cfg wild.how=$how wild.at=r60
    says "stage 'wild' (one.cfg:4): record 'r60': its process .*; log.txt has more; it is kept in quarantine, and the same command goes on"
    exits 0 stop-$how one.cfg
    same one stop-$how
done
exits 1 exit one.cfg wild.isolate=false wild.how=exit wild.at=r60 # in the run itself
says "stage 'wild' of .*record 'r60': it called exit"
exits 1 stop one.cfg wild.how=segv wild.at=r60
says "signal 11 (Segmentation fault)"
says "crash: stage 'wild' of main-1 (wild/one), record 'r60': signal 11 (SIGSEGV); backtrace:" stop/log.txt
says "its process: .*wild.so" stop/log.txt
"$sluice" cat stop/streams/main-1/wild.quarantine.zst >out 2>&1
[ "$(wc -l <out)" = 1 ] && says '"id":"r60".*"quarantine":"was ended by signal 11'
"$sluice" doctor stop >out 2>&1
grep -qi damaged out && bad "doctor calls a run with a quarantine damaged" || ok
exits 1 stop one.cfg wild.how=segv wild.at=r60
[ "$("$sluice" cat stop/streams/main-1/wild.quarantine.zst | wc -l)" = 1 ] && ok || bad "a record is twice in quarantine"
exits 1 stop one.cfg wild.how=shout wild.at=r60
says 'its last words: oh dear'
exits 1 stop one.cfg wild.how=exit wild.at=r60
says 'exit code 7'
exits 1 stop one.cfg wild.how=segv wild.at=init
says "no record in hand: its process was ended by signal 11"
exits 1 stop one.cfg wild.how=segv wild.at=finish wild.on_crash=skip-record
exits 1 stop one.cfg wild.how=rubbish wild.at=r60
says 'wrote what is no message into its connection'
exits 1 stop hang.cfg wild.how=hang wild.at=r60
says "record 'r60': its process gave no sign for 0.5 seconds, its limit, and was ended"
if grep -q -e '-fsanitize=' "$SLUICE_BUILD/config.status"; then
    skip "limits of memory under a sanitizer, which maps terabytes"
else
    exits 1 limited-memory limits.cfg wild.how=eat wild.at=r60
    says 'no memory after [0-9]* MiB'
fi
exits 1 stop one.cfg wild.how=network wild.at=r60 wild.seccomp=true
says 'no network: Operation not permitted'
exits 1 stop one.cfg wild.how=program wild.at=r60 wild.seccomp=true
exits 0 network one.cfg wild.how=network wild.at=r60

# Messages of any kind with anything in them: the run ends, or goes on, but it does not crash.
worst=0
for seed in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    "$sluice" run hang.cfg --quiet --fresh --out fuzz --set seed=$seed --set wild.how=fuzz --set wild.at=r9 >out 2>&1
    got=$?
    [ $got -gt $worst ] && worst=$got
done
[ $worst -le 3 ] && ok || bad "messages of any kind: exit code $worst"

# --- retry: from the first record on, so that nobody can tell
for form in one batch drive; do
    exits 0 $form-plain $form.cfg wild.isolate=false
    exits 0 $form-retry $form.cfg wild.how=segv wild.at=r60 wild.on_crash=retry wild.once="$work/once-$form"
    same $form-plain $form-retry
    says "its process was ended by signal 11" $form-retry/log.txt
    exits 1 $form-thrice $form.cfg wild.how=segv wild.at=r60 wild.on_crash=retry
    says "r60': its process .*, three times"
done

# --- skip-record: all others come through, and the record is kept
for form in one batch; do
    exits 0 $form-skip $form.cfg wild.how=abort wild.at=r60 wild.on_crash=skip-record
    "$sluice" cat $form-skip/streams/main-1/wild.quarantine.zst >out 2>&1
    [ "$(wc -l <out)" = 1 ] && says '"id":"r60"'
    "$sluice" cat $form-plain/streams/main-1/wild.zst | grep -v '"id":"r60"' | sed 's/"seen":[0-9]*//' >expected
    "$sluice" cat $form-skip/streams/main-1/wild.zst | sed 's/"seen":[0-9]*//' >got
    cmp -s expected got && ok || bad "$form: other records than r60 are missing or changed"
    says '"quarantined":1' $form-skip/metrics.jsonl
    says "record 'r60': .*; it is left out and kept in quarantine" $form-skip/log.txt
    "$sluice" run $form.cfg --out $form-skip $(sets wild.how=abort wild.at=r60 wild.on_crash=skip-record) >out 2>&1
    [ "$(grep -c reused out)" = 3 ] && ok || bad "$form: a run that left a record out is not reused"
done
exits 0 several batch.cfg wild.how=segv wild.at=r1 wild.on_crash=skip-record
exits 0 several batch.cfg

# --- a stage of the run's own process: told, ended by the signal, gone on with
for how in segv abort fpe overflow; do
    "$sluice" run one.cfg --quiet --out own-$how $(sets wild.isolate=false wild.how=$how wild.at=r60) >out 2>&1
    [ $? -gt 128 ] && ok || bad "a crash in process does not end by the signal"
    says "crash: stage 'wild' of main-1 (wild/one), record 'r60': signal .*the same command goes on"
    says "crash: stage 'wild' of main-1 (wild/one), record 'r60': signal .*backtrace:" own-$how/log.txt
    says '^[^ ]*wild.so' own-$how/log.txt
    exits 0 own-$how one.cfg
    same one own-$how
done

# --- signals: the first finishes the record in hand, the second ends at once; nothing is left running
slow='numbers.records=100 wild.pause=20000'
signal() { # NAME SIGNAL TIMES SETTING…
    name=$1 signal=$2 times=$3
    shift 3
    "$sluice" run one.cfg --quiet --out "sig-$name" $(sets $slow "$@") >out 2>&1 </dev/null &
    child=$!
    await test -s "sig-$name/streams/main-1/wild.zst.journal"
    sleep 0.5
    kill -"$signal" $child
    [ "$times" = 2 ] && { sleep 0.5; kill -"$signal" $child; }
    wait $child
    got=$?
    [ $got = 130 ] && ok || bad "$name: exit code $got after SIG$signal"
}
exits 0 slow one.cfg $slow
# Under nohup SIGHUP is ignored, and stays so.
signals="INT TERM HUP"
case $(sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status) in
*[13579bdf])
    skip "SIGHUP is ignored here (nohup): closed terminals"
    signals="INT TERM"
    ;;
esac
for isolate in true false; do
    for s in $signals; do
        # A shell starts what runs in the background with SIGINT ignored: the program takes it all the same.
        signal $s-$isolate $s 1 wild.isolate=$isolate
        says 'the same command again goes on from there'
        none "sluice-stage wild"
        exits 0 sig-$s-$isolate one.cfg $slow
        same slow sig-$s-$isolate
    done
    signal hang-$isolate INT 2 wild.isolate=$isolate wild.how=hang wild.at=r3
    none "sluice-stage wild"
done
signal child INT 1 wild.how=child wild.at=r3
none "sleep 987654"
"$sluice" run one.cfg --quiet --out killed $(sets $slow) >out 2>&1 &
child=$!
sleep 0.5
kill -9 $child
wait $child 2>/dev/null
none "sluice-stage wild"
exits 0 killed one.cfg $slow
same slow killed

# Whoever read its words has gone: it stops cleanly all the same.
mkfifo words
"$sluice" run one.cfg --out piped $(sets $slow wild.isolate=false) >out 2>words &
child=$!
head -n 1 <words >/dev/null
sleep 0.5
kill -INT $child
wait $child
got=$?
[ $got = 130 ] && ok || bad "with nobody to read its words: exit code $got"
exits 0 piped one.cfg $slow
same slow piped
# A terminal that is closed.
if [ "$signals" = "INT TERM" ]; then
    :
elif script -qc true /dev/null >/dev/null 2>&1 </dev/null; then
    script -qfc "'$sluice' run one.cfg --out terminal $(sets $slow)" /dev/null >/dev/null 2>&1 </dev/null &
    child=$!
    await test -s terminal/streams/main-1/wild.zst.journal
    sleep 0.3
    kill -9 $child
    wait $child 2>/dev/null
    none "sluice run one.cfg --out terminal"
    none "sluice-stage wild"
    says 'the same command again goes on from there' terminal/log.txt
    exits 0 terminal one.cfg $slow
    same slow terminal
else
    skip "there is no script(1) to make a terminal"
fi
# A judge's program: also one that hangs goes with the run.
if [ -f "$SLUICE_BUILD/plugins/judge-command.so" ]; then
    cat >judge.cfg <<END
sluice = 1; name = "judge"; seed = 7;
phases = ( { name = "main"; stages = (
  { name = "answers"; use = "jsonl-source"; path = "$SLUICE_SOURCE/pipelines/data/preferences.jsonl"; limit = 20; },
  { name = "reward"; use = "judge-command"; from = "answers"; command = ( "sh", "-c", "sleep 0.1; exec sleep 876543" ); }
); } );
END
    for isolate in true false; do
        for s in INT TERM KILL; do
            "$sluice" run judge.cfg --quiet --out judge --set reward.isolate=$isolate >out 2>&1 </dev/null &
            child=$!
            await sh -c "ps -eo args= | grep -q '^sleep 876543'" && ok || bad "the judge's program does not run"
            kill -$s $child
            [ $s = INT ] && { sleep 0.5; kill -$s $child 2>/dev/null; }
            wait $child 2>/dev/null
            none "sleep 876543"
            none "sluice-stage reward"
        done
    done
else
    skip "no judge-command"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
