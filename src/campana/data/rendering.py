"""From messages to pieces of text: prompts, which are not learned, and answers with their end token, which are.

    Rendering(source, variables, control).pieces(messages)
    # [Piece("<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n", False), Piece("Hello<|im_end|>", True)]

Where an answer starts is where the template's own generation prompt ends, found by rendering prefixes of the conversation, never by
searching for a marker. Where it ends is the first control token that the template writes after it.

A template that shows every content unchanged, which its syntax tree tells, is rendered once for each sequence of roles; the contents are
then put into that. All others are rendered for every row. Control tokens inside a content are cut by a mark, a Unicode noncharacter after
their first character, so that the tokens of a text can never be read as the template's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from campana.data.format import DroppedRow
from campana.data.opacity import shows_contents_unchanged
from campana.data.pieces import Piece, control_pattern
from campana.errors import DataError
from campana.records import Message

MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
"""Unicode noncharacters: never part of a text, by the standard."""


Turn = dict[str, str]
OTHERS = "name another: template: chatml | alpaca | belle | plain"


class ChangesEarlierTurns(Exception):  # noqa: N818  # an outcome of a rendering, not a mistake
    """The template shows an answer in another way once more turns follow."""


class Rendering:
    """One Jinja template, its variables and its control tokens."""

    def __init__(self, source: str, variables: Mapping[str, str], control: Sequence[str], special: Sequence[str]) -> None:
        self._source = source
        self._variables: dict[str, Any] = dict(variables)
        self._control = control_pattern(control)
        self.opaque = shows_contents_unchanged(source)
        """Whether contents can be put into a rendering made once."""
        self._shapes: dict[tuple[str, ...], list[tuple[list[str | int], bool]]] = {}
        self._after, self.end_token = self._learn_end()
        self._control_in_answers = control_pattern([*special, self.end_token])
        self.every_turn = True
        self.every_turn = self._keeps_earlier_turns()
        """False: earlier answers change as turns follow, so only a conversation's last answer is learned."""

    def pieces(self, messages: Sequence[Message]) -> tuple[list[Piece], str]:
        """The pieces of a whole conversation, up to the end token of its last answer; and the mark that cuts them.

        Raises DroppedRow `refused by the template` where the template has no form for it.
        """
        mark, turns = self._marked(messages)
        if not self.opaque or not all(turn["content"] for turn in turns):
            return self._rendered(turns), mark
        shape = tuple(turn["role"] for turn in turns)
        if shape not in self._shapes:
            if len(self._shapes) > 512:
                self._shapes.clear()
            self._shapes[shape] = self._skeleton(shape)
        filled = [
            Piece("".join([part if isinstance(part, str) else turns[part]["content"] for part in parts]), supervised)
            for parts, supervised in self._shapes[shape]
        ]
        return filled, mark

    def prompt_pieces(self, messages: Sequence[Message]) -> tuple[list[Piece], str]:
        """The pieces of a prompt: all turns so far, and what stands before the assistant's next words. Rendered every time."""
        mark, turns = self._marked(messages)
        prompt = self._render(turns, generation=True)
        last = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=-1)
        if last < 0 or not self.every_turn:
            return [Piece(prompt, False)], mark
        earlier = self._rendered(turns[: last + 1])
        done = "".join(piece.text for piece in earlier)
        if not prompt.startswith(done):
            raise ChangesEarlierTurns
        return [*earlier, Piece(prompt[len(done) :], False)], mark

    def _learn_end(self) -> tuple[str, str]:
        """What the template writes after an answer, up to its end token, and that token."""
        sample: list[Turn] = [{"role": "user", "content": "Zq0qZ"}, {"role": "assistant", "content": "Zq1qZ"}]
        try:
            prompt, full = self._render(sample[:1], generation=True), self._render(sample, generation=False)
        except DroppedRow as dropped:
            raise DataError(f"the chat template cannot show a question and its answer: {dropped.detail}", hint=OTHERS) from dropped
        if not full.startswith(prompt) or "Zq1qZ" not in full[len(prompt) :]:
            raise DataError(
                "the chat template's prompt for generation is not how an answer starts in a whole conversation",
                hint=OTHERS,
            )
        start = full.index("Zq1qZ", len(prompt)) + len("Zq1qZ")
        end = self._control.search(full, start)
        if end is None:
            raise DataError("the chat template ends no answer with a token of its own, so a model could never learn to stop", hint=OTHERS)
        return full[start : end.end()], end.group()

    def _keeps_earlier_turns(self) -> bool:
        try:
            self._rendered([{"role": role, "content": f"Zq{index}qZ"} for index, role in enumerate(("user", "assistant") * 2)])
        except ChangesEarlierTurns:
            return False
        except DroppedRow:
            return True  # A template of single rounds: each row of more is dropped, with this reason.
        return True

    def _rendered(self, turns: Sequence[Turn]) -> list[Piece]:
        """The pieces of a conversation, from the template itself."""
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        pieces: list[Piece] = []
        done = ""
        for index in answers if self.every_turn else answers[-1:]:
            prompt = self._render(turns[:index], generation=True)
            full = self._render(turns[: index + 1], generation=False)
            if not prompt.startswith(done):
                raise ChangesEarlierTurns
            if not full.startswith(prompt):
                raise DroppedRow("refused by the template", "its prompt in generation is not how the answer starts in training")
            answer = self._answer(full[len(prompt) :], turns[index]["content"])
            pieces += [Piece(prompt[len(done) :], False), Piece(answer, True)]
            done = prompt + answer
        return pieces

    def _render(self, turns: Sequence[Turn], *, generation: bool) -> str:
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered, _ = render_jinja_template(
                conversations=[list(turns)],
                chat_template=self._source,
                add_generation_prompt=generation,
                **self._variables,
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise DroppedRow("refused by the template", str(error)) from error
        return rendered[0]

    def _answer(self, tail: str, content: str) -> str:
        """What of the text after a prompt is learned: the answer and its end token.

        The end token is none of the content's, because those are cut: so the first place where it follows the content is the end.
        """
        for shown in dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip())):
            place = tail.find(shown + self._after)
            if place >= 0:
                return tail[: place + len(shown) + len(self._after)]
        raise DroppedRow("refused by the template", "it rewrites the answer")

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[Turn]]:
        """The turns with every control token in their contents cut by a mark that none of them holds.

        In answers, added tokens that are not special stay whole, because a model may be taught to write them: `<think>`.
        """
        contents = [message.content for message in messages]
        patterns = [self._control_in_answers if message.role == "assistant" else self._control for message in messages]
        mark = MARKS[0]
        if any(mark in content or pattern.search(content) for content, pattern in zip(contents, patterns, strict=True)):
            mark = next((mark for mark in MARKS if not any(mark in content for content in contents)), "")
            if not mark:
                raise DroppedRow("not text", "it holds all of Unicode's noncharacters")
            contents = [_cut(content, pattern, mark) for content, pattern in zip(contents, patterns, strict=True)]
        return mark, [{"role": message.role, "content": content} for message, content in zip(messages, contents, strict=True)]

    def _skeleton(self, shape: tuple[str, ...]) -> list[tuple[list[str | int], bool]]:
        skeleton: list[tuple[list[str | int], bool]] = []
        for piece in self._rendered([{"role": role, "content": f"Zq{index}qZ"} for index, role in enumerate(shape)]):
            parts = re.split(r"Zq(\d+)qZ", piece.text)
            skeleton.append(([int(part) if index % 2 else part for index, part in enumerate(parts)], piece.supervised))
        return skeleton


def _cut(content: str, control: re.Pattern[str], mark: str) -> str:
    """The content with the mark after the first character of every control token, overlapping ones included."""
    pieces: list[str] = []
    done = place = 0
    while (match := control.search(content, place)) is not None:
        place = match.start() + 1
        pieces += [content[done:place], mark]
        done = place
    return "".join([*pieces, content[done:]])
