"""What a section of the report is.

To add a section, write one subclass of `Section` in a file of its own, its template in
`templates/sections/NAME.html.j2`, and list it in `poise.study.report.page.SECTIONS`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from poise.study.findings import Findings


class Section(ABC):
    """A section of the report.

    Attributes:
        name: Its anchor, and the name of its template.
        title: Its heading.
        link: Its name in the navigation.
        is_detail: Whether it explains how the result came about, and belongs at the end. Default: `False`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    link: ClassVar[str]
    is_detail: ClassVar[bool] = False

    @abstractmethod
    def context(self, study: Findings) -> dict[str, Any] | None:
        """Return the variables of the template, or `None` to leave the section out.

        A `Plot` among them is drawn by the macro `plot`.
        """
