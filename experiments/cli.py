"""The `offramp` command: each word after it is a Hydra program of this folder."""

import importlib
import re
import sys
from importlib.resources import files

COMMANDS = {
    "compare": "play policies against a stream of distorted images: table, report, data",
    "report": "one page about a sweep or a comparison: tables, figures, filters, data",
    "train": "train a network with exits",
    "experts": "train one set of exits for each family of distortions",
    "extract": "make a confidence cache from images and weights",
    "payloads": "make a confidence cache, and beside it what every codec at every split sends and changes",
    "import": "make a confidence cache from per-sample results that others have published",
    "router": "train what tells blur, noise and light apart, and count its answers by level",
    "profile": "time a network on this machine, part by part, and write its device profile",
    "export": "write a network as ONNX files, stages or halves at each cut, each tried in onnxruntime",
    "serve": "answer decide and update over HTTP: worker processes that decide, one learner",
    "cloud": "run the tail of a network behind HTTP",
    "edge": "run the head of a network on a stream of images, against a real cloud",
    "corruptions": "show a test image under every corruption at every severity",
    "calibration": "study: can an exit be believed, and what does that change for offloading",
    "expert_branches": "study: experts for distorted images against pristine exits, at equal cost",
    "headline": "study: the joint policy with experts against the final exit and the two trivial policies",
    "papers": "what the papers claim, measured again, one page for each claim",
    "offpolicy": "what other rules would have earned, by the log of an engine; and a study of that",
    "joint_policy": "study: every policy, tuned alike, and the joint policy in a fixed suite of worlds",
    "deadline": "study: missed deadlines against calibration and policy, in a world in time",
    "link_change": "study: every policy and every fixed choice on 24 recorded mobile links",
    "live": "study: a real edge and a real cloud beside the simulation of the same",
    "payload": "study: which codec and split win at which rate of the link and speed of the edge",
}
MODULES = {"import": "import_published"}  # a module may not bear a keyword's name
EXTRAS = {  # what to install for a module that is missing; all others belong to "experiments"
    "models": ("torch", "torchvision", "PIL", "scipy"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "serve": ("starlette", "uvicorn", "uvloop", "httptools", "pydantic", "pydantic_core", "prometheus_client"),
}
USAGE = "usage: offramp COMMAND [key=value ...]      offramp COMMAND --help      offramp COMMAND -m key=a,b ...\n\n"


def described(command: str) -> str:
    """What a program is for, and its configuration with all comments, read as text; "" where it has none."""
    conf = files("offramp.conf")
    if not (conf / f"{command}.yaml").is_file():
        return ""
    text = (conf / f"{command}.yaml").read_text(encoding="utf-8").split("\nhydra:\n")[0]
    groups = ""
    for group in re.findall(r"^  - (\w+): \w", text, re.MULTILINE):
        names = sorted(path.name[:-5] for path in (conf / group).iterdir() if path.name.endswith(".yaml"))
        groups += f"\n  {group}={'|'.join(names)}"
    choices = f"\n\nWhat the groups under `defaults` may be:{groups}" if groups else ""
    return (
        f"offramp {command}: {COMMANDS[command]}\n\nEvery option with its default; change one by key=value.\n\n"
        f"{text.rstrip()}{choices}\n\nAfter key=value words, --help shows the configuration that they make."
    )


def main() -> None:
    """Entry point of the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + "\n".join(f"  {name:<17}{text}" for name, text in COMMANDS.items()))
        return
    if arguments[0] not in COMMANDS:
        sys.exit(f"offramp: there is no command {arguments[0]!r}, allowed are {', '.join(COMMANDS)}")
    asks = bool({"-h", "--help"} & set(arguments[1:]))
    text = described(arguments[0]) if asks else ""
    if text and len(arguments) == 2:  # needs none of the program's own modules
        print(text)
        return
    sys.argv = [f"offramp {arguments[0]}", *arguments[1:]]
    try:
        module = importlib.import_module(f"offramp.experiments.{MODULES.get(arguments[0], arguments[0])}")
    except ModuleNotFoundError as error:
        if text:
            print(text)
            return
        extra = next((extra for extra, names in EXTRAS.items() if error.name in names), "experiments")
        sys.exit(f"offramp {arguments[0]} needs {error.name}: pip install 'offramp[{extra}]'")
    module.main()


if __name__ == "__main__":
    main()
