# Answer requests as agent.py does, where there is no Python: POSIX sh with cat, head, tail, ls, od and their like.
# A request is a line "op<TAB>argument<TAB>..." with backslash escapes; an answer is "0 <encoded>", or an errno and the text.
set -f
tab=$(printf '\t')
newline='
'
if printf x | base64 >/dev/null 2>&1; then coding=base64; else coding=hex; fi
encoded() {
    if [ "$coding" = base64 ]; then base64 | tr -d '\n'; else od -An -v -tx1 | tr -d ' \n'; fi
}
give() { printf '0 '; encoded; printf '\n'; }
fail() { printf '%s ' "$1"; printf '%s' "$2" | encoded; printf '\n'; }
yes_or_no() { if "$@"; then printf 1; else printf 0; fi | give; }
is_program() { [ -f "$1" ] && [ -x "$1" ]; }
existing() {
    place=$1
    while [ "$place" != / ] && [ ! -e "$place" ]; do place=$(dirname -- "$place"); done
    printf '%s' "$place"
}
readable() {
    if [ ! -e "$1" ]; then fail 2 'No such file or directory'
    elif [ -d "$1" ]; then fail 21 'Is a directory'
    elif [ ! -r "$1" ]; then fail 13 'Permission denied'
    else return 0; fi
    return 1
}
run() {
    limit=${1%%.*}
    shift
    command -v "$1" >/dev/null 2>&1 || { fail 2 'not found on PATH'; return; }
    if command -v timeout >/dev/null 2>&1; then set -- timeout "$limit" "$@"; fi
    out=$(LC_ALL=C LANGUAGE=C "$@" 2>&1 </dev/null)
    code=$?
    if [ "$1" = timeout ] && { [ $code = 124 ] || [ $code = 143 ]; }; then fail 110 "did not answer within $limit s"; return; fi
    printf '%s -\n%s\n' "$code" "$out" | give
}
printf 'sh %s\n' "$coding"
while IFS= read -r line; do
    IFS=$tab
    set -- $line
    IFS=$newline
    op=$1
    shift
    i=$#
    while [ "$i" -gt 0 ]; do
        item=$(printf '%b.' "$1")
        shift
        set -- "$@" "${item%.}"
        i=$((i - 1))
    done
    case $op in
    environ) cat /proc/self/environ 2>/dev/null | give ;;
    read) readable "$1" && { tail -c "+$(($2 + 1))" "$1" 2>/dev/null | head -c "$3" | give; } ;;
    size) readable "$1" && { wc -c <"$1" | tr -d ' ' | give; } ;;
    exists) yes_or_no [ -e "$1" ] ;;
    program) yes_or_no is_program "$1" ;;
    realpath) { readlink -f -- "$1" || printf '%s' "$1"; } 2>/dev/null | give ;;
    listdir) if [ -d "$1" ]; then ls -1A -- "$1" 2>/dev/null | give; else fail 2 'No such file or directory'; fi ;;
    glob)
        set +f
        for name in $1; do if [ -e "$name" ] || [ -h "$name" ]; then printf '%s\n' "$name"; fi; done | give
        set -f
        ;;
    writable) yes_or_no [ -w "$(existing "$1")" ] ;;
    free)
        place=$(existing "$1")
        space=$(df -Pk "$place" 2>/dev/null | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
        inodes=$(df -Pi "$place" 2>/dev/null | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)
        printf '%s %s' "$((${space:-0} * 1024))" "${inodes:-0}" | give
        ;;
    run) run "$@" ;;
    *) fail 22 "unknown request $op" ;;
    esac
done
