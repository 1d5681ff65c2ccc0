"""The papermill engine that runs a chapter, checks what it shows and tries its widgets."""

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import faults
import nbformat
import uses
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.output_widget import OutputWidget
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from traitlets.config import Config

SHARP = "c.InlineBackend.figure_formats = {'retina'}\n"  # for phones, print and enlarging
EXERCISE = Path(__file__).resolve().with_name("exercise_widgets.py")


class QuietOutput(OutputWidget):
    """An Output widget that tells the kernel nothing back: nbclient can stall when it does."""

    def send(self, *_: Any, **__: Any) -> None:
        """Send nothing."""


class ChapterClient(PapermillNotebookClient):
    """Runs the cells, then the widgets' callbacks, and raises a Fault when either fails."""

    widget_state: dict[str, Any]
    widget_buffers: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.widget_registry = {"@jupyter-widgets/output": {"OutputModel": QuietOutput}}

    def execute_cell(self, cell: Any, index: int, **kwargs: Any) -> Any:
        """Run one cell; one that hangs or kills the kernel is a Fault of that cell."""
        try:
            return super().execute_cell(cell, index, **kwargs)
        except CellTimeoutError as error:
            raise faults.Fault(f"{type(error).__name__}: {error}", cell.get("id", "")) from None
        except DeadKernelError:
            status = self.km.provisioner.process.returncode
            raise faults.Fault(faults.death(status), cell.get("id", "")) from None

    def papermill_execute_cells(self) -> None:
        """Run the cells and check them; then try the widgets, and undo what that changed."""
        super().papermill_execute_cells()
        faults.check(self.nb.cells, self.widget_state)
        before = copy.deepcopy((self.nb.cells, self.widget_state, self.widget_buffers))
        try:
            if self.widget_state:
                self.exercise_widgets()
            self.nb.metadata["modules"] = json.loads(self.say(uses.LOADED))
        finally:
            self.nb.cells, self.widget_state, self.widget_buffers = before

    def say(self, source: str) -> str:
        """Run a cell that is no part of the chapter, and return what it prints."""
        self.nb.cells.append(nbformat.v4.new_code_cell(source))
        self.execute_cell(self.nb.cells[-1], len(self.nb.cells) - 1)
        return "".join(output.get("text", "") for output in self.nb.cells[-1].outputs)

    def exercise_widgets(self) -> None:
        """Use every control inside the kernel."""
        try:
            self.say(f"import runpy\nrunpy.run_path({str(EXERCISE)!r})['exercise_all']()")
        except CellExecutionError as error:
            where = faults.cell_of(error.evalue, self.nb.cells)
            raise faults.Fault(f"a widget fails when it is used: {error.evalue}", *where) from None


class ChapterEngine(NBClientEngine):
    """Runs chapters with a ChapterClient, each in a kernel with a folder of its own."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        """Run a notebook over sockets in a fresh folder: chapters run at once share no port."""
        with tempfile.TemporaryDirectory(prefix="qk-") as folder:
            config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
            client = ChapterClient(
                nb_man,
                config=config,
                kernel_name=kernel_name,
                timeout=options["execution_timeout"],
                startup_timeout=options["start_timeout"],
                shutdown_kernel="immediate",
            )
            # A fresh IPYTHONDIR keeps the user's own start-up files out of the book.
            (Path(folder) / "profile_default").mkdir()
            (Path(folder) / "profile_default" / "ipython_kernel_config.py").write_text(SHARP)
            return client.execute(env={**os.environ, "IPYTHONDIR": folder})
