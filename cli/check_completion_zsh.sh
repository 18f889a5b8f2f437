#!/bin/bash
# check_completion_zsh.sh PROGRAM: what a tab makes of a line in an interactive zsh. Ends with 77 where there is no zsh.
set -u
command -v zsh >/dev/null || { echo "skipped: zsh is not installed" && exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$(realpath "$1")" "$folder/maestro"
export HOME=$folder PATH=$folder:$PATH TERM=dumb
cat >"$folder/check.zsh" <<'ZSH'
zmodload zsh/zpty
zmodload zsh/zselect
zpty shell zsh -f -i
wait_for() {
  local i
  for ((i = 0; i < 500; i++)); do
    [[ -e $1 ]] && return
    zselect -t 2
    zpty -r -t shell ignored 2>/dev/null  # what it prints must not fill the pty
  done
  print -u2 "nothing came from zsh"
  exit 1
}
zpty -w shell 'autoload -Uz compinit && compinit -u -d ~/dump; source <(maestro completion zsh); setopt no_beep no_auto_menu'
zpty -w shell 'report() { print -r -- "$BUFFER|" >~/line.part; mv ~/line.part ~/line; BUFFER="" }; zle -N report; bindkey "^X" report; : >~/ready'
wait_for ~/ready
integer failed=0
expect() {
  rm -f ~/line
  zpty -w -n shell "$1"$'\t\x18'
  wait_for ~/line
  local said=$(<~/line)
  [[ $said == "$2|" ]] && return
  print -u2 "a tab after '$1' made '$said'; expected: '$2|'"
  failed=1
}
expect 'maestro pub' 'maestro publish '
expect 'maestro bench --mode lat' 'maestro bench --mode latency '
expect 'maestro bench --mode=lat' 'maestro bench --mode=latency '
expect 'maestro config ling' 'maestro config linger '
expect 'maestro status -o ling' 'maestro status -o linger='
expect 'maestro status -o mode=p' 'maestro status -o mode=pubsub '
expect 'maestro status --option=mode=p' 'maestro status --option=mode=pubsub '
expect 'maestro --broker memory://demo topics cr' 'maestro --broker memory://demo topics create '
expect 'maestro completion z' 'maestro completion zsh '
touch ~/words-of-a-file
expect 'maestro publish orders --file ~/words-o' 'maestro publish orders --file ~/words-of-a-file '
exit $failed
ZSH
zsh -f "$folder/check.zsh"
