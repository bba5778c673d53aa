"""Counting the calls of a process, and comparing the counts of two sizes."""

import json
import subprocess
import sys

from benchmarks.counting import KINDS
from benchmarks.work import compare_counts
from tests.support.pages import ROOT

SCRIPT = """
import json, threading
from benchmarks.counting import Counters

def step(texts):
    return [len(text) for text in texts]

counters = Counters()
counters.install()
step("ab")
thread = threading.Thread(target=step, args=("abc",))
thread.start()
thread.join()
before = counters.read()
step("abcd")
print(json.dumps([before, counters.read()]))
"""


def test_calls_of_python_and_c_functions_are_counted_in_each_thread() -> None:
    output = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    before, after = json.loads(output)
    python_calls, c_calls = KINDS
    length = "<built-in method builtins.len>"
    assert (before[python_calls]["<string>:step"], after[python_calls]["<string>:step"]) == (2, 3)
    assert after[c_calls][length] - before[c_calls][length] >= 4
    assert before[c_calls][length] >= 5


def test_functions_with_the_largest_increase_are_first() -> None:
    fewer = {KINDS[0]: {"flat": 9, "grows": 1}, KINDS[1]: {"gone": 2}}
    more = {KINDS[0]: {"flat": 9, "grows": 5}, KINDS[1]: {"new": 3}}
    assert compare_counts(fewer, more) == [
        ("all Python calls", "10", "14"),
        ("all C calls", "2", "3"),
        ("grows", "1", "5"),
        ("new", "0", "3"),
        ("flat", "9", "9"),
        ("gone", "2", "0"),
    ]
