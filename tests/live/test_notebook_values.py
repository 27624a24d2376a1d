"""Values at the end of a notebook's cell: short, with the video, and nothing of a stranger's."""

from __future__ import annotations

import pytest

from veo3_async import Phase, Stats, TaskFailed, Transition, VideoTask

TASK = VideoTask(
    id="veo3-pro:1",
    status="completed",
    phase=Phase.COMPLETED,
    video_url="https://file.302.ai/a.mp4?x=1&y=2",
    enhanced_prompt="a storm " * 500,
)


def change(task: VideoTask, *, final: bool) -> Transition:
    return Transition(
        request_id=task.id,
        phase=task.phase,
        previous=Phase.GENERATING,
        status=task.status,
        task=task,
        observed_at=1.0,
        final=final,
        eta=None if final else 12.3,
        error=TaskFailed("unsafe <b>") if task.phase is Phase.FAILED else None,
    )


def test_task_is_short_in_words_and_plays_its_video() -> None:
    """Whoever prints a task reads a line; a notebook shows the video beside it."""
    assert repr(TASK) == (
        "VideoTask(id='veo3-pro:1', phase='completed', status='completed', "
        "best_url='https://file.302.ai/a.mp4?x=1&y=2', …)"
    )
    page = TASK._repr_html_()
    assert '<video src="https://file.302.ai/a.mp4?x=1&amp;y=2"' in page
    assert "a storm" not in page
    assert len(repr(change(TASK, final=True))) < 500


def test_transition_says_what_changed_and_what_is_left() -> None:
    """Before the end there is no video to play; a failure has its reason."""
    running = change(
        VideoTask(id="a", phase=Phase.UPSAMPLING, video_url=TASK.video_url), final=False
    )
    assert "generating → upsampling" in running._repr_html_()
    assert "12 s" in running._repr_html_()
    assert "<video" not in running._repr_html_()
    failed = change(VideoTask(id="a", phase=Phase.FAILED), final=True)
    assert "unsafe &lt;b&gt;" in failed._repr_html_()


def test_stats_are_a_table() -> None:
    """Each number has its name; what is not known is left out."""
    page = Stats(rate=20.0, polls=7)._repr_html_()
    assert "<th>polls</th><td>7</td>" in page
    assert "lag_p50" not in page


@pytest.mark.parametrize("url", ["javascript:alert(1)", 'https://a.example/"><script>alert(1)'])
def test_nothing_of_a_url_is_run(url: str) -> None:
    """What the service calls a URL is neither a script nor the end of an attribute."""
    page = VideoTask(id="<script>", video_url=url)._repr_html_()
    assert "<script" not in page
    assert 'src="javascript' not in page
