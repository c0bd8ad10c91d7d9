"""One run of a function, in a process of its own as in Lambda, with the code of this checkout.

Not the archive: it would take seconds to build, and tests/ has it run with what Lambda has. Forked
from a server that has imported Custodian and the pack, and nothing of AWS.
"""

import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import uuid
from multiprocessing import forkserver

from .bootstrap import Context, WoundClock

PROCESSES = multiprocessing.get_context("forkserver")
PRELOAD = "simulation.in_place_preloaded"


def start_server() -> None:
    """Begin with the imports of the functions, while this process goes on. A process that is forked
    from this one afterwards has no server."""
    PROCESSES.set_forkserver_preload([PRELOAD])
    forkserver.ensure_running()


def invoke(config: dict, timeout: int, event: dict, environment: dict[str, str]) -> dict:
    """Run the policy of a function once on an event, and wait for it.

    config: the archive's config.json. timeout: seconds, as the function sees them: nobody waits for
    a sleep. environment: all of it, with credentials and the endpoint.

    Returns `answer` (what the handler returns, None after an error), `error` (None, or a line),
    `steps` (the outcomes of all resources, after an error too), `filters` ([{filter, before,
    after}], how many resources each was given and let pass, up to the one that stopped them) and
    `log`.
    """
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_run, args=(theirs, config, timeout, event, environment))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        error = f"the process of the function ended with {process.exitcode}"
        return {"answer": None, "error": error, "steps": [], "filters": [], "log": ""}
    finally:
        process.join()
        process.close()


def _run(channel, config: dict, timeout: int, event: dict, environment: dict[str, str]) -> None:
    folder = tempfile.TemporaryDirectory(prefix="function-", dir=environment["HOME"])
    with folder, open(os.path.join(folder.name, "log"), "w+") as log:
        os.chdir(folder.name)
        os.environ.clear()
        os.environ.update(environment)
        with open("config.json", "w") as file:
            json.dump(config, file)
        sys.stdout = sys.stderr = log
        logging.basicConfig(stream=log, level=logging.INFO, force=True)
        clock = WoundClock().install()
        clock.deadline = time.time() + timeout
        clock.expire = lambda seconds: sys.exit(f"timed out: a sleep of {seconds:.0f} s")
        told = {"answer": None, "error": None, "steps": [], "filters": []}
        resources = []
        try:
            told["answer"] = _handled(event, clock.deadline, told["filters"], resources)
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it is, Lambda reports it
            told["error"] = f"{type(error).__name__}: {error}"
            traceback.print_exc(file=log)
        if resources:
            from custom_actions.handler import outcomes_of  # imported by now

            told["steps"] = outcomes_of([one for one, _ in resources], resources[0][1])
        log.seek(0)
        channel.send(told | {"log": log.read()})
        channel.close()


def _handled(event: dict, deadline: float, seen: list[dict], resources: list[dict]) -> dict:
    # here, so that who starts the server need not import them
    from c7n.manager import ResourceManager

    from custom_actions import handler

    filter_resources = ResourceManager.filter_resources

    def filtered(manager, given, event=None):
        for element in manager.filters:
            element.process = _told(element, seen)
        left = filter_resources(manager, given, event)
        resources.extend((resource, manager.resource_type.id) for resource in left)
        return left

    ResourceManager.filter_resources = filtered
    return handler.run(event, Context(str(uuid.uuid4()), deadline))


def _told(element, seen: list[dict]):
    process = element.process

    def told(resources, event=None):
        left = process(resources, event)
        seen.append({"filter": element.type, "before": len(resources), "after": len(left)})
        return left

    return told
