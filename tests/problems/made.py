"""Made-up rows of the schemas that the data sets have, and knobs to read them with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from seirenes_jax.knobs import Problems

BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
BEHIND = '\n\nRemember to put your answer on its own line after "Answer:".'


def dapo(question: str, answer: str) -> dict[str, Any]:
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": BEFORE + question + BEHIND, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "9a9b6eb4"},
    }


def openr1(question: str, answer: str | None, kind: str = "math-word-problem") -> dict[str, Any]:
    return {
        "problem": question, "solution": "So it is.", "answer": answer, "problem_type": "Algebra",
        "question_type": kind, "source": "olympiads", "uuid": "c-1", "generations": ["Hm.", "So."],
        "is_reasoning_complete": [True, True], "correctness_count": 1,
    }  # fmt: skip


def deepmath(question: str, answer: str, difficulty: float) -> dict[str, Any]:
    return {
        "question": question, "final_answer": answer, "difficulty": difficulty, "topic": "Algebra",
        "r1_solution_1": "Hm.", "r1_solution_2": "Hm.", "r1_solution_3": "Hm.",
    }  # fmt: skip


def math(question: str, solution: str, level: str = "Level 4") -> dict[str, Any]:
    return {"problem": question, "level": level, "type": "Geometry", "solution": solution}


def polaris(question: str, answer: str, difficulty: str = "3/8") -> dict[str, Any]:
    return {"problem": question, "answer": answer, "difficulty": difficulty}


def jsonl(folder: Path, *rows: Any, name: str = "set.jsonl") -> Path:
    """A file of rows; a text is written as it is."""
    file = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def knobs(path: object, **changed: Any) -> Problems:
    plain = Problems(
        path=str(path), format="", question_column="", answer_column="", levels=(),
        decontaminate=(), overlap=0.0, checkable=False, malformed=0, mastered_share=0.0,
    )  # fmt: skip
    return replace(plain, **changed)
