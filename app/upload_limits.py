"""Limits of what browsers put into the server's memory by Streamlit's upload route, a session and in all.

Streamlit limits the bytes of a file alone, and keeps every file of a session until the session ends, whether a page
asks for files or not. What does not fit is refused with status 413 and the limit.
"""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

SESSION_BYTES: Final = 20_000_000  # a few files of 5 MB: those of a page stay while another is looked at
SESSION_FILES: Final = 20
TOTAL_BYTES: Final = 500_000_000
TOTAL_FILES: Final = 2_000


class LimitedFiles(MemoryUploadedFileManager):
    """Streamlit's store of uploaded files, which takes no more than fits into the limits."""

    def add_file(self, session_id: str, file: UploadedFileRec) -> None:
        """Keep a file, in the place of an earlier one of its id. Raises HTTPException (413) with the limit."""
        kept = {session: list(files.values()) for session, files in list(self.file_storage.items())}
        session = [one for one in kept.get(session_id, []) if one.file_id != file.file_id]
        others = [one for name, files in kept.items() if name != session_id for one in files]
        for what, files, most_bytes, most_files in (
            ("this session", session, SESSION_BYTES, SESSION_FILES),
            ("all sessions together", [*session, *others], TOTAL_BYTES, TOTAL_FILES),
        ):
            if sum(len(one.data) for one in files) + len(file.data) > most_bytes or len(files) >= most_files:
                detail = f"Too much is uploaded: {what} may hold {most_bytes // 10**6:,} MB in {most_files:,} files"
                raise HTTPException(413, f"{detail}; remove a file, or load the page again later")
        super().add_file(session_id, file)


def limit_uploads() -> None:
    """Have the server of this process keep to the limits, from its first page on."""
    if not runtime.exists():
        return
    files = runtime.get_instance().uploaded_file_mgr
    if type(files) is MemoryUploadedFileManager:
        files.__class__ = LimitedFiles  # the routes hold this very object
