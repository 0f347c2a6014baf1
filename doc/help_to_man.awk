# A command's --help as a manual page of section 1. -v name=PAGE -v summary=TEXT -v version=VERSION; sluice's own help
# (name=sluice) begins with its summary and lists the commands.
function escape(text)
{
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    sub(/^[.']/, "\\\\\\&&", text)
    return text
}
function print_verbatim(    i)
{
    print ".nf"
    for (i = first; i <= count; i++) {
        sub(/^  /, "", lines[i])
        print escape(lines[i])
    }
    print ".fi"
}
# "  --option X  what it does", gone on with by lines that are indented further.
function print_items(    i, at)
{
    for (i = first; i <= count; i++) {
        if (match(lines[i], /^  [^ ]/) && (at = match(substr(lines[i], 3), /  +/))) {
            print ".TP"
            print ".B " escape(substr(lines[i], 3, at - 1))
            print escape(substr(lines[i], 3 + at + RLENGTH - 1))
        } else if (lines[i] ~ /^  [^ ]/) { # options that need no words
            print ".TP\n.B " escape(substr(lines[i], 3)) "\n\\&"
        } else {
            sub(/^ +/, "", lines[i])
            if (lines[i] ~ /  /) # a small table keeps its lines
                print ".br"
            print escape(lines[i])
        }
    }
}
function print_text(    i)
{
    for (i = first; i <= count; i++)
        print escape(lines[i])
}
function print_commands(    i, word)
{
    print ".SH COMMANDS"
    for (i = first; i <= count; i++) {
        split(lines[i], word, " ")
        sub(/^ +[^ ]+ +/, "", lines[i])
        print ".TP"
        print ".BR sluice\\-" escape(word[1]) " (1)"
        print escape(lines[i])
    }
}
# lines[1 … count] are a paragraph.
function end_paragraph()
{
    first = 1
    if (count == 0)
        return
    paragraph++
    if (name == "sluice" && paragraph == 1) {
        summary = lines[1]
        sub(/^sluice /, "", summary)
        sub(/\.$/, "", summary)
        print ".SH NAME\nsluice \\- " escape(summary)
    } else if (name == "sluice" && paragraph == 2) {
        print ".SH SYNOPSIS\n.B sluice\n.I COMMAND\n[\\fIOPTIONS\\fR]"
    } else if (name == "sluice" && paragraph == 3) {
        print_commands()
    } else if (paragraph == 1) {
        print ".SH NAME\n" escape(name) " \\- " escape(summary) "\n.SH SYNOPSIS"
        print_verbatim()
    } else if (lines[1] ~ /^Exit codes: /) {
        sub(/^Exit codes: /, "", lines[1])
        print ".SH EXIT STATUS"
        print_text()
    } else if (lines[1] ~ /^Examples?:$/) {
        print ".SH EXAMPLES"
        first = 2
        print_verbatim()
    } else if (lines[1] ~ /^  -/) {
        print ".SH OPTIONS"
        print_items()
    } else if (lines[1] ~ /^  [^ ]/) { # a table
        print ".PP"
        print_verbatim()
    } else {
        print paragraph == 2 ? ".SH DESCRIPTION" : ".PP"
        print_text()
    }
    count = 0
}
BEGIN {
    title = toupper(name)
    print ".TH " escape(title) " 1 \"\" \"sluice " version "\" \"sluice\""
}
/^$/ { end_paragraph(); next }
{ lines[++count] = $0 }
END {
    end_paragraph()
    print ".SH SEE ALSO"
    if (name != "sluice")
        print ".BR sluice (1),"
    print ".BR sluice\\-describe (1),\n.BR sluice\\-plugins (1)"
}
