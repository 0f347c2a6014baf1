# Makes one mistake in a pipeline file: awk -v seed=N -v kind=K -f mutate.awk FILE >MUTANT 2>WHAT
# WHAT gets one line: the line of the mistake, "exact" or "from" (a reader can notice it there or only later), and its kind.
# Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0

function pick(n) { return int(rand() * n) }

# A line with code and no comment that holds the pattern; 0 = there is none.
function line_with(pattern,    i, n, at) {
    n = 0
    for (i = 1; i <= lines; i++)
        if (text[i] ~ pattern && text[i] !~ /#/)
            at[++n] = i
    return n ? at[1 + pick(n)] : 0
}

# Puts `now` in the place of one of the line's matches; in it, & is the match without its last `left` characters.
function change(line, pattern, now, left,    n, rest, begin, which, at, was) {
    n = 0
    at = 0
    for (rest = text[line]; match(rest, pattern); rest = substr(rest, RSTART + RLENGTH)) {
        at += RSTART
        begin[++n] = at
        size[n] = RLENGTH
        at += RLENGTH - 1
    }
    which = 1 + pick(n)
    was = substr(text[line], begin[which], size[which] - left)
    gsub(/&/, was, now)
    text[line] = substr(text[line], 1, begin[which] - 1) now substr(text[line], begin[which] + size[which] - left)
}

function say(line, how, what) { told = line " " how " " what }

{ text[NR] = $0 }

END {
    lines = NR
    srand(seed)
    told = ""
    if (kind == 0 && (l = line_with("^ +\\{ name.*\\},$"))) {
        sub(/,$/, "", text[l])
        say(l, "next", "no comma between stages")
    } else if (kind == 1 && (l = line_with("= \"[^\"]*\""))) {
        change(l, "= \"", "= ", 0)
        say(l, "exact", "an opening quote is missing")
    } else if (kind == 2 && (l = line_with("name = .* [a-z_]+ = "))) {
        change(l, " [a-z_]+ = ", "&zz", 3)
        say(l, "exact", "a key misspelt")
    } else if (kind == 3 && (l = line_with("use = \"[a-z-]+\""))) {
        change(l, "use = \"[a-z-]+", "&q", 0)
        say(l, "exact", "a class misspelt")
    } else if (kind == 4 && (l = line_with("(from|model|by|judge|current) += \"[a-z-]+\""))) {
        change(l, "(from|model|by|judge|current) += \"[a-z-]+", "&q", 0)
        say(l, "exact", "a name misspelt")
    } else if (kind == 5 && (l = line_with("= [0-9]"))) {
        change(l, "= [0-9][0-9.e-]*", "= \"many\"", 0)
        say(l, "exact", "a number became a string")
    } else if (kind == 6 && (l = line_with("= [0-9]"))) {
        change(l, "= [0-9][0-9.e-]*", "= ( 1, 2 )", 0)
        say(l, "exact", "a number became a list")
    } else if (kind == 7 && (l = line_with("[a-z]"))) {
        text[l] = text[l] " \377"
        say(l, "exact", "a byte that is no UTF-8")
    } else if (kind == 8 && (l = line_with("[)}]"))) {
        change(l, "[)}]", "", 0)
        say(l, "from", "a closing bracket is missing")
    } else if (kind == 9) {
        l = 8 + pick(lines - 9)
        lines = l
        text[l] = "  { name = \"cut\";"
        say(l, "from", "the file is cut off")
    } else if (kind == 10 && (l = line_with("; [a-z_]+ = [0-9][0-9.e-]*;"))) {
        match(text[l], "; [a-z_]+ = [0-9][0-9.e-]*;")
        text[l] = substr(text[l], 1, RSTART) substr(text[l], RSTART + 1, RLENGTH - 1) substr(text[l], RSTART + 1)
        say(l, "exact", "a setting twice")
    } else if (kind == 11 && (l = line_with(" = "))) {
        change(l, " = ", " ", 0)
        say(l, "exact", "an = is missing")
    } else if (kind == 12) {
        l = 0
        for (i = lines; i > 1 && !l; i--)
            if (match(text[i], /name = "[a-z-]+";? +use/) && match(text[i - 1], /name = "[a-z-]+"; +use/)) {
                name = text[i - 1]
                sub(/^[^"]*"/, "", name)
                sub(/".*/, "", name)
                sub(/name = "[a-z-]+"/, "name = \"" name "\"", text[i])
                l = i
            }
        if (l)
            say(l, "exact", "a stage's name twice")
    } else if (kind == 13 && (l = line_with("^seed"))) {
        text[l] = text[l] " phase = 3;"
        say(l, "exact", "a setting that nobody knows")
    } else if (kind == 14 && (l = line_with("^ +\\{ name"))) {
        text[l] = "/* " text[l]
        say(l, "exact", "a comment never ends")
    } else if (kind == 15 && (l = line_with("= \"[^\"]*\""))) {
        change(l, "= \"[^\"]*\"", "= 'single'", 0)
        say(l, "exact", "the wrong quotes")
    }
    for (i = 1; i <= lines; i++)
        print text[i]
    print told > "/dev/stderr"
}
