"""The progress bar of a run."""

from typing import Any

from lightning.pytorch.callbacks import RichProgressBar


class Progress(RichProgressBar):
    """Lightning's, drawn twice a second: to draw it takes some milliseconds, in which all threads wait.

    Lightning's own waits at its end for the thread that draws it, which sleeps until it would draw again; and it
    writes "Epoch 3/-2" where steps or a time limit bound a run, and no number of epochs does.

    Args:
        refresh_rate: how often it is drawn in a second.
        options: of Lightning's.
    """

    def __init__(self, refresh_rate: int = 2, **options: Any) -> None:
        super().__init__(refresh_rate=refresh_rate, **options)

    def _get_train_description(self, current_epoch: int) -> str:
        described = super()._get_train_description(current_epoch)
        return described.replace("/-2", "   ") if self.trainer.max_epochs == -1 else described

    def _stop_progress(self) -> None:
        thread = None if self.progress is None else self.progress.live._refresh_thread
        if thread is not None:
            # It is told to end, does so when it wakes up, and no process waits for it.
            thread.join = lambda timeout=None: None  # type: ignore[method-assign]
        super()._stop_progress()
