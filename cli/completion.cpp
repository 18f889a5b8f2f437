#include <fmt/format.h>

#include <algorithm>
#include <maestro/messaging/config.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "output.hpp"

namespace maestro::cli {

namespace {

using Words = std::vector<std::string>;

/// The option of the verb, or of the whole command, that is written so.
const CLI::Option* find_option(const CLI::App& verb, std::string_view word) {
  for (const auto* app = &verb; app != nullptr; app = app->get_parent())
    for (const auto* option : app->get_options()) {
      const auto is = [&](std::string_view dashes, const std::string& name) {
        return word.starts_with(dashes) && word.substr(dashes.size()) == name;
      };
      for (const auto& name : option->get_lnames())
        if (is("--", name)) return option;
      for (const auto& name : option->get_snames())
        if (is("-", name)) return option;
    }
  return nullptr;
}

bool takes_value(const CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}

/// `NAME=` of every setting, or behind that what the setting may be, where it is one of a few.
Words settings(std::string_view written) {
  Words words;
  const auto equals = written.find('=');
  for (const auto& spec : messaging::option_table()) {
    if (equals == std::string_view::npos) words.push_back(fmt::format("{}=", spec.name));
    if (equals == std::string_view::npos || written.substr(0, equals) != spec.name) continue;
    for (const auto value : spec.allowed) words.push_back(fmt::format("{}={}", spec.name, value));
    if (spec.type == messaging::OptionType::boolean)
      for (const auto* value : {"true", "false"}) words.push_back(fmt::format("{}={}", spec.name, value));
  }
  return words;
}

/// What an option may be, where that is one of a few: its check puts `{a,b}` behind its type.
Words values_of(const CLI::Option& option, std::string_view written) {
  if (option.check_lname("option")) return settings(written);
  const auto type = option.get_type_name();
  const auto open = type.find('{');
  const auto close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
}

/// The brokers and the options, of which `config` takes one.
void add_subjects(Words& words) {
  for (const auto type : {messaging::BrokerType::memory, messaging::BrokerType::kafka, messaging::BrokerType::redis,
                          messaging::BrokerType::rabbitmq, messaging::BrokerType::nats})
    words.emplace_back(to_string(type));
  for (const auto& spec : messaging::option_table()) words.emplace_back(spec.name);
}

/// What may follow a verb: those below it, its arguments, its options, and those of the whole command.
Words words_of(const CLI::App& verb) {
  Words words;
  for (const auto* below : verb.get_subcommands([](const CLI::App*) { return true; }))
    words.push_back(below->get_name());
  if (verb.get_name() == "config") add_subjects(words);
  for (const auto* option : verb.get_options())
    if (option->get_positional()) std::ranges::copy(values_of(*option, ""), std::back_inserter(words));
  for (const auto* app = &verb; app != nullptr; app = app->get_parent())
    for (const auto* option : app->get_options())
      if (app == &verb || (!option->check_lname("help") && !option->check_lname("version")))
        for (const auto& name : option->get_lnames()) words.push_back("--" + name);
  return words;
}

/// What the last word of a line may become.
Words candidates(const CLI::App& root, const Words& line) {
  const auto* verb = &root;
  const CLI::Option* open = nullptr;  // an option whose value comes next
  for (std::size_t i = 0; i + 1 < line.size(); ++i) {
    if (std::exchange(open, nullptr) != nullptr) continue;
    const auto* option = find_option(*verb, line[i]);
    if (option != nullptr && takes_value(*option)) open = option;
    for (const auto* below : verb->get_subcommands([](const CLI::App*) { return true; }))
      if (below->get_name() == line[i]) {
        verb = below;
        break;
      }
  }
  const auto current = line.empty() ? std::string() : line.back();
  const auto equals = current.find('=');
  Words words;
  if (open != nullptr) {
    words = values_of(*open, current);
  } else if (current.starts_with("--") && equals != std::string::npos) {
    const auto* option = find_option(*verb, current.substr(0, equals));
    if (option == nullptr) return {};
    for (const auto& value : values_of(*option, current.substr(equals + 1)))
      words.push_back(current.substr(0, equals + 1) + value);
  } else {
    words = words_of(*verb);
  }
  std::erase_if(words, [&](const std::string& word) { return !word.starts_with(current); });
  return words;
}

constexpr std::string_view bash_script = R"(# Bash completion for maestro: source <(maestro completion bash)
_maestro() {
  local words=() word joined="" current="${COMP_WORDS[COMP_CWORD]}" i
  # Bash takes name=value for three words.
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    if [[ "$word" =~ ^[=:]+$ && ${#words[@]} -gt 0 ]]; then
      words[-1]+="$word"
      joined=1
    elif [ -n "$joined" ]; then
      words[-1]+="$word"
      joined=""
    else
      words+=("$word")
    fi
  done
  [[ "$current" =~ ^[=:]+$ ]] && current=""
  local known="${words[-1]%"$current"}"
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]/#\~/$HOME}" __complete "${words[@]}" 2>/dev/null)
  COMPREPLY=("${COMPREPLY[@]#"$known"}")
  [[ "${COMPREPLY[0]-}" == *= ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _maestro maestro
)";

constexpr std::string_view zsh_script = R"(#compdef maestro
# Zsh completion for maestro: source <(maestro completion zsh), or a file _maestro in $fpath
_maestro() {
  local -a candidates=("${(@f)$("${(Q)words[1]/#\~/$HOME}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -z "${candidates[1]}" ]]; then
    _default
  elif [[ "${candidates[1]}" == *= ]]; then
    compadd -S '' -- "${candidates[@]}"
  else
    compadd -- "${candidates[@]}"
  fi
}
if [ "$funcstack[1]" = "_maestro" ]; then
  _maestro "$@"
else
  compdef _maestro maestro
fi
)";

constexpr std::string_view fish_script = R"(# Fish completion for maestro: maestro completion fish | source
function __maestro_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l candidates ($words[1] __complete $words[2..-1] 2>/dev/null)
  if test -n "$candidates"
    printf '%s\n' $candidates
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c maestro -f -a '(__maestro_complete)'
)";

}  // namespace

int print_candidates(const CLI::App& app, const Words& line) {
  for (const auto& word : candidates(app, line)) print_line(word);
  return exit_ok;
}

void add_completion(CLI::App& app, const Settings&, Action& action) {
  auto* verb = app.add_subcommand("completion", "Print the completion script of a shell");
  auto shell = std::make_shared<std::string>();
  verb->fallthrough();
  verb->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  verb->callback([shell, &action] {
    action = [shell] {
      fmt::print("{}", *shell == "bash" ? bash_script : *shell == "zsh" ? zsh_script : fish_script);
      return int{exit_ok};
    };
  });
}

}  // namespace maestro::cli
