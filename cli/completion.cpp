#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "command.hpp"
#include "output.hpp"

namespace maestro::cli {

namespace {

using Options = std::vector<const CLI::Option*>;

/// The options that may follow a verb: its own, and those of the whole command.
Options options_of(const CLI::App& app, const CLI::App& root) {
  Options all = app.get_options();
  if (&app == &root) return all;
  for (const auto* option : root.get_options())
    if (!option->check_lname("help") && !option->check_lname("version")) all.push_back(option);
  return all;
}

/// What an option may be, where that is one of a few: its check puts `{a,b}` behind its type.
std::string values_of(const CLI::Option& option) {
  const auto type = option.get_type_name();
  const auto open = type.find('{');
  const auto close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return {};
  auto values = type.substr(open + 1, close - open - 1);
  std::replace(values.begin(), values.end(), ',', ' ');
  return values;
}

bool takes_value(const CLI::Option& option) {
  return !option.get_positional() && option.get_items_expected_max() > 0;
}

/// `--name|-n`, as a pattern of `case`.
std::string names_of(const CLI::Option& option) {
  std::string names;
  for (const auto& name : option.get_lnames()) names += (names.empty() ? "--" : "|--") + name;
  for (const auto& name : option.get_snames()) names += (names.empty() ? "-" : "|-") + name;
  return names;
}

std::string words_of(const CLI::App& app, const CLI::App& root) {
  std::string words;
  const auto add = [&](const std::string& word) { words += (words.empty() ? "" : " ") + word; };
  for (const auto* verb : app.get_subcommands([](const CLI::App*) { return true; })) add(verb->get_name());
  const auto options = options_of(app, root);
  for (const auto* option : options)
    if (const auto values = values_of(*option); option->get_positional() && !values.empty()) add(values);
  for (const auto* option : options)
    for (const auto& name : option->get_lnames()) add("--" + name);
  return words;
}

/// One `case` line for the command and for each below it: the verbs typed so far, and what may follow.
void add_cases(std::string& cases, const CLI::App& app, const CLI::App& root, const std::string& path) {
  cases += fmt::format("    \"{}\") candidates=\"{}\" ;;\n", path, words_of(app, root));
  for (const auto* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    add_cases(cases, *verb, root, path.empty() ? verb->get_name() : path + " " + verb->get_name());
}

/// One `case` pattern for everything that is a verb under `path`.
std::string verb_cases(const CLI::App& app, const std::string& path) {
  std::string cases;
  for (const auto* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    const auto below = path.empty() ? verb->get_name() : path + " " + verb->get_name();
    cases += fmt::format("      \"{}:{}\") verbs=\"{}\" ;;\n", path, verb->get_name(), below);
    cases += verb_cases(*verb, below);
  }
  return cases;
}

/// One `case` line for each option that takes a value, under any verb: what that may be, or nothing where it may be
/// anything.
void add_value_cases(std::set<std::string>& cases, const CLI::App& app, const CLI::App& root) {
  for (const auto* option : options_of(app, root))
    if (takes_value(*option))
      cases.insert(fmt::format("    {}) values=\"{}\" ;;\n", names_of(*option), values_of(*option)));
  for (const auto* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    add_value_cases(cases, *verb, root);
}

/// The shell function that tells an option which takes a value, and puts what it may be into `values`.
std::string values_function(const CLI::App& root) {
  std::set<std::string> cases;
  add_value_cases(cases, root, root);
  std::string text = "_maestro_values() {\n  values=\"\"\n  case \"$1\" in\n";
  for (const auto& line : cases) text += line;
  return text + "    *) return 1 ;;\n  esac\n}\n";
}

std::string bash_script(const CLI::App& root) {
  std::string cases;
  add_cases(cases, root, root, "");
  return "# Bash completion for maestro: source <(maestro completion bash)\n" + values_function(root) +
         "_maestro() {\n"
         "  local verbs=\"\" word candidates=\"\" values=\"\" i previous=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
         "  local current=\"${COMP_WORDS[COMP_CWORD]}\"\n"
         "  # Bash takes --name=value for three words.\n"
         "  if [ \"$current\" = \"=\" ]; then\n"
         "    current=\"\"\n"
         "  elif [ \"$previous\" = \"=\" ]; then\n"
         "    previous=\"${COMP_WORDS[COMP_CWORD-2]}\"\n"
         "  fi\n"
         "  if _maestro_values \"$previous\"; then\n"
         "    COMPREPLY=($(compgen -W \"$values\" -- \"$current\"))\n"
         "    return\n"
         "  fi\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=\"${COMP_WORDS[i]}\"\n"
         "    if _maestro_values \"$word\"; then\n"
         "      [ \"${COMP_WORDS[i+1]}\" = \"=\" ] && i=$((i + 1))\n"
         "      i=$((i + 1))\n"
         "      continue\n"
         "    fi\n"
         "    case \"$verbs:$word\" in\n" +
         verb_cases(root, "") +
         "    esac\n"
         "  done\n"
         "  case \"$verbs\" in\n" +
         cases +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$candidates\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _maestro maestro\n";
}

std::string zsh_script(const CLI::App& root) {
  std::string cases;
  add_cases(cases, root, root, "");
  return "#compdef maestro\n"
         "# Zsh completion for maestro: source <(maestro completion zsh), or a file _maestro in $fpath\n" +
         values_function(root) +
         "_maestro() {\n"
         "  local verbs=\"\" word candidates=\"\" values=\"\" i\n"
         "  if _maestro_values \"${words[CURRENT-1]}\"; then\n"
         "    if [[ -n \"$values\" ]]; then compadd -- ${=values}; else _default; fi\n"
         "    return\n"
         "  fi\n"
         "  for ((i = 2; i < CURRENT; i++)); do\n"
         "    word=\"${words[i]}\"\n"
         "    if _maestro_values \"$word\"; then\n"
         "      i=$((i + 1))\n"
         "      continue\n"
         "    fi\n"
         "    case \"$verbs:$word\" in\n" +
         verb_cases(root, "") +
         "    esac\n"
         "  done\n"
         "  case \"$verbs\" in\n" +
         cases +
         "  esac\n"
         "  compadd -- ${=candidates}\n"
         "}\n"
         "if [ \"$funcstack[1]\" = \"_maestro\" ]; then\n"
         "  _maestro \"$@\"\n"
         "else\n"
         "  compdef _maestro maestro\n"
         "fi\n";
}

}  // namespace

void add_completion(CLI::App& app, const Settings&, Action& action) {
  auto* verb = app.add_subcommand("completion", "Print the completion script of a shell");
  auto shell = std::make_shared<std::string>();
  verb->fallthrough();
  verb->add_option("SHELL", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  verb->callback([shell, &app, &action] {
    action = [shell, &app] {
      fmt::print("{}", *shell == "bash" ? bash_script(app) : zsh_script(app));
      return int{exit_ok};
    };
  });
}

}  // namespace maestro::cli
