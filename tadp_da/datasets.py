"""Where images and labels come from: a registered data set or your own folders, the same for every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tadp_da.captions.imperfect import imperfect
from tadp_da.captions.provider import CaptionProvider
from tadp_da.class_names import spoken
from tadp_da.custom_dataset import CustomDataset, custom_domain
from tadp_da.domains import Domain, domains
from tadp_da.domains.checks.preflight import preflight
from tadp_da.domains.shared import parts
from tadp_da.errors import DataError, UsageError
from tadp_da.images import changed
from tadp_da.registry import nearest
from tadp_da.run import Run
from tadp_da.storage.files import digest, file_digest, stamps
from tadp_da.tasks import tasks
from tadp_da.types import LabelSpace, Unlabeled

_KNOWN: dict[Any, str] = {}
"""Digests of files and labels by all that tells whether they have changed: every row of a table asks for the same."""


def _once(key: Any, make: Callable[[], str]) -> str:
    if key not in _KNOWN:
        _KNOWN[key] = make()
    return _KNOWN[key]


@dataclass(frozen=True)
class DataSource:
    """A domain, and the root folder of its files. What it has once digested is expected to stay: images and labels are
    compared with it when they are read.

    Attributes:
        domain: the domain, whose labels are compared too.
        root: folder of its files.
        about: what else tells its labels from those of another source with the same images.
        files: digests of image files.
        labels: digests of their labels.
    """

    domain: Domain
    root: Path
    about: str = ""
    files: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)
    labels: dict[Path, str] = field(default_factory=dict, compare=False, repr=False)

    def images(self, split: str) -> Unlabeled:
        """The images of a split."""
        return replace(self.domain.unlabeled(self.root, split), digests=self.files)

    def has(self, split: str) -> bool:
        """Whether the split exists and is labelled."""
        return split in self.domain.splits and self.domain.has_labels(split)

    def digest(self, split: str, *, labels: bool = True, names: bool = False) -> str:
        """One digest over the contents of the images of a split in their order, of their labels and of the label
        space that they are ids of.

        Args:
            split: which.
            labels: include the labels, where the split has them.
            names: include the images' keys. Where they lie changes nothing in what is learned from them.
        """
        images, labels = self.images(split), labels and self.domain.label is not None
        parts = [
            (images.key(i) if names else "", self._file(path), self._label(path) if labels else "")
            for i, path in enumerate(images.paths)
        ]
        return digest(repr((self.domain.labels if labels else None, parts)).encode())

    def _file(self, path: Path) -> str:
        if path not in self.files:
            self.files[path] = _once(stamps(path), lambda: file_digest(path))
        return self.files[path]

    def _label(self, path: Path) -> str:
        if path not in self.labels:
            read, about = self.domain.label, (self.domain.name, self.domain.labels, self.about)
            assert read is not None  # only asked where there are labels
            self.labels[path] = _once((about, stamps(path)), lambda: digest(read(path).tobytes()))
        return self.labels[path]

    def captions(
        self,
        split: str,
        provider: CaptionProvider,
        run: Run,
        *,
        from_labels: tuple[float, float] | None = None,
    ) -> Mapping[str, str]:
        """Captions of the images of a split by key.

        Args:
            split: which.
            provider: gives them.
            run: keeps what a captioner writes.
            from_labels: the names of the classes in each image's label instead, at this precision and recall
                (:func:`tadp_da.captions.imperfect.imperfect`), for strategies that read labels.

        Raises:
            UsageError: when labels are to be read and there are none, or they have no classes.
        """
        images, labels = self.images(split), self.domain.labels
        if from_labels is None:
            return provider(images, split, run)
        if labels is None or not labels.classes or not self.has(split):
            raise UsageError(
                f"the caption strategy reads class names from labels, and those of {self.domain.name!r} ({split}) have "
                "none",
                where="strategy",
                fix="choose another strategy, such as null; an oracle needs labels with classes on every image",
            )
        names = [spoken(name) for name in labels.classes]
        found = {images.key(i): self._present(path, labels) for i, path in enumerate(images.paths)}
        if from_labels == (1.0, 1.0):
            return found
        return {
            key: ", ".join(imperfect(key, text.split(", ") if text else [], names, *from_labels))
            for key, text in found.items()
        }

    def _present(self, path: Path, labels: LabelSpace) -> str:
        """The classes in a label, in the order of their ids."""
        read, about = self.domain.label, (self.domain.name, labels, self.about, "classes")
        assert read is not None  # only asked where there are labels

        def names() -> str:
            return ", ".join(map(spoken, tasks[labels.task].present(read(path), labels)))

        return _once((about, stamps(path)), names)

    def checked(self, splits: Sequence[str], run: Run) -> DataSource:
        """The same after a look at every file of those of these splits that the domain has."""
        used = [s for s in splits if s in self.domain.splits and (s == "unlabeled" or self.has(s))]
        for path in {path for split in used for path in self.domain.images(self.root, split)}:
            with suppress(OSError):  # the check reports it
                self._file(path)
        return (
            replace(self, domain=preflight(self.domain, self.root, used, run, self.about)) if used else self
        )

    def limited(self, limit: int | None) -> DataSource:
        """Only the first so many images of every split."""
        return self if limit is None else replace(self, domain=parts.first(self.domain, limit))

    def subsample(
        self, count: int | None, seed: int, split: str = "unlabeled", setting: str = "target_images"
    ) -> DataSource:
        """The same with this many images of a split, a function of their names and the seed alone: a larger sample
        holds the smaller. ``setting`` is where the count is from.

        Raises:
            DataError: when there are not as many.
        """
        if count is None:
            return self
        return replace(self, domain=parts.drawn(self.domain, split, count, seed, setting))

    def part(self, share: float, *, held_out: bool) -> DataSource:
        """The same with only the unlabelled images that are held out, or with the others: a share of all by the digests
        of their contents, so that copies are on one side and names do not matter."""
        if not share and not held_out:
            return self
        return replace(self, domain=parts.shared_out(self.domain, share, self._file, held_out=held_out))


def resolve(choice: str | CustomDataset, data: Path, limit: int | None = None) -> DataSource:
    """A registered domain under the data root, or the user's own folders under their common parent.

    Args:
        choice: which.
        data: root of the registered domains.
        limit: only the first so many images of every split.
    """
    if isinstance(choice, str):
        domain, root, about = domains[choice], data, ""
    else:
        domain, root = custom_domain(choice), choice.root
        places = (choice.train_labels, choice.test_labels, choice.legend)
        about = digest(repr((choice, stamps(*filter(None, places)))).encode())
    known: dict[Path, str] = {}
    domain = replace(domain, label=domain.label and _watched(domain.label, known))
    return DataSource(domain, root, about, labels=known).limited(limit)


def _watched(label: Callable[[Path], Any], known: Mapping[Path, str]) -> Callable[[Path], Any]:
    """Read labels, and compare them with digests that are known."""

    def read(path: Path) -> Any:
        found = label(path)
        if path in known and digest(found.tobytes()) != known[path]:
            raise changed("the label of an image", path)
        return found

    return read


def find(images: str | Path, data: Path, **options: Any) -> tuple[DataSource, bool]:
    """What a command's IMAGES argument names: a folder, or a registered data set; and whether it is registered.

    Args:
        images: a folder of images, or a name of ``data list``.
        data: root of the registered domains.
        options: of :meth:`CustomDataset.of`, for folders.

    Raises:
        DataError: when it is neither.
    """
    folder = Path(images)
    if folder.is_dir():
        return resolve(CustomDataset.of(folder, **options), data), False
    if str(images) in domains:
        if options.get("labels"):
            raise UsageError(
                f"{images} is a registered data set and has its own labels", fix="omit the labels"
            )
        return resolve(str(images), data), True
    raise DataError(
        f"there is no such folder, and no registered data set of this name{nearest(images, list(domains))}",
        where=images,
        fix="check the path, or give a name that `tadp-da data list` prints",
    )
