"""What may be wrong with a teacher's reply: names as they stand in `rejected`, and what each means."""

# The values of `rejected` of corrections and critiques.
FAULTS = {
    "length": "The endpoint stopped the reply at --max_tokens.",
    "content_filter": "The endpoint withheld the reply or refused the prompt.",
    "too_long": "The prompt is longer than the endpoint takes; one that takes more is asked into another --out.",
    "no_choices": "The endpoint's answer holds no reply.",
    "refusal": "The teacher declined to answer.",
    "empty": "The reply says nothing.",
    "cut_off": "The reply ends inside its thinking or its solution.",
    "no_step": "The reply names no step.",
    "no_solution": "The reply holds no corrected steps.",
    "no_answer": "The corrected solution states no answer.",
    "wrong_answer": "The corrected solution ends in another answer than gold.",
    "no_such_step": "A step that the reply calls wrong is none of the attempt's.",
    "rewrites_kept_steps": "The steps before the wrong one are rewritten, or a sum of theirs gets another value.",
    "starts_elsewhere": "The corrected solution does not begin at the step that is called wrong.",
    "same_step": "The first corrected step says what the wrong one says.",
    "later_step": "The solution repeats the equations of the step called wrong, and mends one of a later step.",
    "no_explanation": "The explanation has no words.",
    "tells_answer": "The reply points at an answer that the student cannot know.",
    "other_reason": "The solution mends a false equation, and the explanation gives another reason.",
    "false_equation": "An equation in the corrected solution is false.",
    "no_judgement": "The critique does not conclude whether the solution is right or wrong.",
    "wrong_judgement": "The critique calls a right solution wrong, or a wrong one right.",
    "no_reasons": "The critique gives no reasons.",
    "label_left": "A label or heading is left in a corrected step.",
}
# The names of the same faults in files of earlier versions.
FORMER = {
    "answer_is_gold": "wrong_answer",
    "step_exists": "no_such_step",
    "keeps_prefix": "rewrites_kept_steps",
    "starts_at_step": "starts_elsewhere",
    "changes_step": "same_step",
    "explained": "no_explanation",
    "no_leak": "tells_answer",
}
