#include <fmt/format.h>

#include <memory>

#include "command.hpp"
#include "output.hpp"

namespace maestro::cli {

namespace {

std::string words_of(const CLI::App& app, const CLI::App& root) {
  std::string words;
  const auto add = [&](const std::string& word) { words += (words.empty() ? "" : " ") + word; };
  for (const auto* verb : app.get_subcommands([](const CLI::App*) { return true; })) add(verb->get_name());
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) add("--" + name);
  }
  if (&app != &root)
    for (const auto* option : root.get_options())
      for (const auto& name : option->get_lnames())
        if (name != "help" && name != "version") add("--" + name);
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

std::string bash_script(const CLI::App& root) {
  std::string cases;
  add_cases(cases, root, root, "");
  return "# Bash completion for maestro: source <(maestro completion bash)\n"
         "_maestro() {\n"
         "  local verbs=\"\" word candidates=\"\" i\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=\"${COMP_WORDS[i]}\"\n"
         "    case \"$verbs:$word\" in\n" +
         verb_cases(root, "") +
         "    esac\n"
         "  done\n"
         "  case \"$verbs\" in\n" +
         cases +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$candidates\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "complete -o default -F _maestro maestro\n";
}

std::string zsh_script(const CLI::App& root) {
  std::string cases;
  add_cases(cases, root, root, "");
  return "#compdef maestro\n"
         "# Zsh completion for maestro: source <(maestro completion zsh), or a file _maestro in $fpath\n"
         "_maestro() {\n"
         "  local verbs=\"\" word candidates=\"\" i\n"
         "  for ((i = 2; i < CURRENT; i++)); do\n"
         "    word=\"${words[i]}\"\n"
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
