"""Annotations of LabelImg and LabelMe: what is read and written, what is refused, and the images they belong to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom.uid import MRImageStorage

from inference.datasets import labelme, open_mr_dataset, voc
from inference.datasets.annotation import MOST_BYTES, Annotation, read_folder
from inference.datasets.labelled import UnusableData
from inference.datasets.labelled_mr import ImageBox
from tests.mr_fixtures import write_csv
from tests.sources import SAGITTAL, as_file, ct_headers

#: As LabelImg 1.8 writes it.
LABELIMG = """<annotation verified="yes">
\t<folder>images</folder>
\t<filename>12.jpg</filename>
\t<path>C:\\lumbar\\images\\12.jpg</path>
\t<source>\n\t\t<database>Unknown</database>\n\t</source>
\t<size>\n\t\t<width>48</width>\n\t\t<height>40</height>\n\t\t<depth>3</depth>\n\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>herniation</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>1</truncated>
\t\t<difficult>1</difficult>
\t\t<bndbox>\n\t\t\t<xmin>1</xmin>\n\t\t\t<ymin>4</ymin>\n\t\t\t<xmax>20</xmax>\n\t\t\t<ymax>40</ymax>\n\t\t</bndbox>
\t</object>
</annotation>"""
#: As the toolbox writes it: line breaks in names, a deleted object, a polygon.
LABELME = """<annotation><filename>12.jpg
</filename><folder>sci</folder><source><submittedBy>A</submittedBy></source>
<object><name>
oedema
</name><deleted>0</deleted><verified>0</verified><attributes>behind C5</attributes><id>0</id>
<polygon><username>a</username><pt><x>10</x><y>12</y></pt><pt><x>14.5</x><y>9</y></pt><pt><x>12</x><y>30</y></pt>
</polygon></object>
<object><name>a slip of the pen</name><deleted>1</deleted><id>1</id><polygon/></object>
<imagesize><nrows>40</nrows><ncols>48</ncols></imagesize></annotation>"""
HERNIATION = ImageBox(slice=0, left=1, top=4, right=20, bottom=40, label="herniation")
OEDEMA = ImageBox(slice=0, left=10, top=9, right=14.5, bottom=30, label="oedema")
LAUGHS = """<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><annotation><filename>&b;</filename>
</annotation>"""
TABLE = "file,patient,region,sequence,plane,pixel_mm"


def refusal(tmp_path: Path, text: str, read=voc.read) -> str:  # noqa: ANN001
    path = tmp_path / "12.xml"
    path.write_text(text)
    with pytest.raises(UnusableData) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    return str(refused.value)


@pytest.mark.parametrize(("text", "read", "box"), [(LABELIMG, voc.read, HERNIATION), (LABELME, labelme.read, OEDEMA)])
def test_what_the_tools_write_is_read(tmp_path, text, read, box):
    path = tmp_path / "12.xml"
    path.write_text(text)
    assert read(path) == Annotation(image="12.jpg", columns=48, rows=40, boxes=(box,))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_annotation_may_have_any_encoding_of_xml(tmp_path, encoding):
    path = tmp_path / "12.xml"
    path.write_text(LABELIMG, encoding=encoding)
    assert voc.read(path).boxes == (HERNIATION,)


def test_what_is_written_is_read_again_in_whole_pixels(tmp_path):
    boxes = (OEDEMA, ImageBox(slice=0, left=0, top=0, right=47.6, bottom=3.2, label="slip", level="L4/L5"))
    voc.write(tmp_path / "a.xml", Annotation(image="ä.png", columns=48, rows=40, boxes=boxes))
    found = voc.read(tmp_path / "a.xml")
    assert (found.image, found.columns, found.rows) == ("ä.png", 48, 40)
    edges = [(box.label, box.left, box.top, box.right, box.bottom, box.level) for box in found.boxes]
    assert edges == [("oedema", 10, 9, 14, 30, None), ("slip", 0, 0, 48, 3, None)]


def test_an_image_without_a_finding_is_written_and_read(tmp_path):
    empty = Annotation(image="12.png", columns=48, rows=40, boxes=())
    voc.write(tmp_path / "12.xml", empty)
    assert voc.read(tmp_path / "12.xml") == empty


def test_a_box_that_would_be_refused_is_not_written(tmp_path):
    outside = Annotation(image="12.png", columns=10, rows=40, boxes=(HERNIATION,))
    with pytest.raises(UnusableData, match=r"\(1, 4\) to \(20, 40\) is not inside the 10 x 40 pixels"):
        voc.write(tmp_path / "12.xml", outside)
    assert not (tmp_path / "12.xml").exists()


@pytest.mark.parametrize("read", [voc.read, labelme.read])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_grow(tmp_path, read, encoding):
    path = tmp_path / "12.xml"
    path.write_text(LAUGHS, encoding=encoding)
    with pytest.raises(UnusableData, match=r"12\.xml: has a DOCTYPE"):
        read(path)


def test_a_document_type_elsewhere_is_not_fetched(tmp_path):
    outside = '<!DOCTYPE annotation SYSTEM "http://localhost/a.dtd">' + LABELIMG
    assert "has a DOCTYPE" in refusal(tmp_path, outside)


def test_a_file_as_large_as_no_annotation_is_refused(tmp_path):
    assert "larger than" in refusal(tmp_path, LABELIMG.ljust(MOST_BYTES + 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("herniation", "HNP", "class 'HNP' is none of oedema, haemorrhage"),
        ("<xmax>20<", "<xmax>49<", "the herniation box (1, 4) to (49, 40) is not inside the 48 x 40 pixels"),
        ("<ymax>40<", "<ymax>41<", "is not inside"),
        ("<xmin>1<", "<xmin>-1<", "is not inside"),
        ("<xmin>1<", "<xmin>20<", "is empty or inside out"),
        ("<xmin>1<", "<xmin>nan<", "<bndbox/xmin> is 'nan', not a number"),
        ("<xmin>1<", "<xmin>one<", "<bndbox/xmin> is 'one', not a number"),
        ("<name>herniation</name>", "", "<object> without <name>"),
        ("<width>48</width>", "", "<annotation> without <size/width>"),
        ("<filename>12.jpg</filename>", "<filename> </filename>", "<annotation> without <filename>"),
        ("</annotation>", "", "no element found"),
    ],
)
def test_a_damaged_annotation_of_labelimg_is_refused(tmp_path, old, new, message):
    assert old in LABELIMG
    assert message in refusal(tmp_path, LABELIMG.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("oedema", "high signal", "class 'high signal' is none of"),
        ("<deleted>1<", "<deleted>0<", "the object 'a slip of the pen' is no polygon"),
        ("<imagesize>", "<imagesise>", "mismatched tag"),
        ("<ncols>48</ncols>", "", "<annotation> without <imagesize/ncols>"),
        ("<x>14.5</x>", "<x>50</x>", "is not inside the 48 x 40 pixels"),
    ],
)
def test_a_damaged_annotation_of_labelme_is_refused(tmp_path, old, new, message):
    assert old in LABELME
    assert message in refusal(tmp_path, LABELME.replace(old, new), labelme.read)


def test_another_xml_file_is_refused(tmp_path):
    assert "begins with <html>, not <annotation>" in refusal(tmp_path, "<html/>")


def test_the_folder_of_a_reader_is_read_by_the_names_of_the_files(tmp_path):
    (tmp_path / "12.xml").write_text(LABELIMG)
    (tmp_path / "._12.xml").write_bytes(b"left by macOS")
    assert list(read_folder(tmp_path, voc.read)) == ["12"]
    with pytest.raises(UnusableData, match="no XML file; give the folder of one reader"):
        read_folder(tmp_path / "nobody", voc.read)


PIXELS = np.random.default_rng(3).integers(0, 200, (40, 48)).astype(np.uint8)


def write_reader(
    root: Path, *, name: str = "12.png", table: Sequence[str] | None = None, pixels: np.ndarray = PIXELS
) -> Path:
    """Write one image, its row and what a reader drew; return the reader's folder."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "surgeon").mkdir(exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=pixels.ndim == 3), root / "images" / name)
    write_csv(root / "images.csv", TABLE, *(table or [f"{name},P1,lumbar,T2,sagittal,0.5"]))
    (root / "surgeon" / f"{Path(name).stem}.xml").write_text(LABELIMG)
    return root / "surgeon"


def refused_reader(folder: Path, name: str = "12") -> str:
    with pytest.raises(UnusableData) as refused:
        open_mr_dataset(f"voc:{folder}").load(name)
    return str(refused.value)


def test_an_image_is_a_study_of_one_slice(tmp_path):
    case = open_mr_dataset(f"voc:{write_reader(tmp_path)}").load("12")
    (series,) = case.series
    assert (case.name, case.patient, case.region) == ("12", "P1", "lumbar")
    assert (series.sequence, series.plane, series.boxes) == ("T2", "sagittal", (HERNIATION,))
    assert np.array_equal(series.values, PIXELS[None])
    # A row further is half a millimetre to the feet, a column further as much to the back.
    assert (series.affine @ [0, 1, 0, 0]).tolist() == [0, 0, -0.5, 0]
    assert (series.affine @ [0, 0, 1, 0]).tolist() == [0, 0.5, 0, 0]


def test_labelme_reads_the_same_folders(tmp_path):
    folder = write_reader(tmp_path)
    (folder / "12.xml").write_text(LABELME)
    assert open_mr_dataset(f"labelme:{folder}").load("12").series[0].boxes == (OEDEMA,)


def test_an_image_that_nobody_marked_is_unknown_and_not_normal(tmp_path):
    folder = write_reader(tmp_path, table=["12.png,P1,lumbar,T2,sagittal,0.5", "13.png,P1,lumbar,T1,axial,0.5"])
    (tmp_path / "images" / "12.png").rename(tmp_path / "images" / "13.png")
    dataset = open_mr_dataset(f"voc:{folder}")
    assert dataset.names == ("12", "13")
    assert dataset.load("13").series[0].boxes is None


def test_a_colour_image_becomes_grey(tmp_path):
    colour = np.stack([PIXELS, PIXELS, PIXELS], axis=2)
    case = open_mr_dataset(f"voc:{write_reader(tmp_path, pixels=colour)}").load("12")
    assert np.allclose(case.series[0].values, PIXELS[None])


def test_an_image_with_transparency_is_refused(tmp_path):
    folder = write_reader(tmp_path, pixels=np.stack([PIXELS] * 4, axis=2))
    assert "12.png: 48 x 40 pixels of 4 value(s); each image is a file of its own here" in refused_reader(folder)


def test_a_dicom_image_says_itself_where_it_lies(tmp_path):
    folder = write_reader(tmp_path, table=["12.dcm,P1,cervical,STIR,sagittal,"])
    (header,) = ct_headers(1, orientation=SAGITTAL)
    header.SOPClassUID, header.Modality = MRImageStorage, "MR"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.PixelData = PIXELS.astype("<u2").tobytes()
    as_file(header)
    header.save_as(tmp_path / "images" / "12.dcm", enforce_file_format=True)
    (series,) = open_mr_dataset(f"voc:{folder}").load("12").series
    assert np.array_equal(series.values, PIXELS[None])
    assert (series.affine @ [0, 0, 0, 1])[:3].tolist() == pytest.approx(list(header.ImagePositionPatient))
    assert (series.affine @ [0, 2, 3, 0])[:3].tolist() == pytest.approx([0, 3 * 0.75, -2 * 0.5])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("12.png,P1,thoracic,T2,sagittal,0.5", "line 2: region is 'thoracic', not one of cervical, lumbar"),
        ("12.png,P1,lumbar,FLAIR,sagittal,0.5", "sequence is 'FLAIR', not one of T1, T2, STIR"),
        ("12.png,P1,lumbar,T2,coronal,0.5", "plane is 'coronal', not one of sagittal, axial"),
        ("12.png,,lumbar,T2,sagittal,0.5", "'12.png' has no patient"),
        ("../12.png,P1,lumbar,T2,sagittal,0.5", "is no plain name"),
        ("12.png,P1,lumbar,T2,sagittal,", "line 2: pixel_mm is '', not a number"),
        ("12.png,P1,lumbar,T2,sagittal,0", "pixel_mm is 0, not positive"),
        ("13.png,P1,lumbar,T2,sagittal,0.5", "XML without an image in images.csv: 12"),
    ],
)
def test_a_table_of_images_that_is_wrong_is_refused(tmp_path, row, message):
    assert message in refused_reader(write_reader(tmp_path, table=[row]))


def test_an_image_listed_twice_is_refused(tmp_path):
    rows = ["12.png,P1,lumbar,T2,sagittal,0.5", "12.jpg,P1,lumbar,T2,sagittal,0.5"]
    assert "line 3: '12.jpg' has no patient, is no plain name, or was listed before" in refused_reader(
        write_reader(tmp_path, table=rows)
    )


def test_boxes_drawn_in_an_image_of_another_size_are_refused(tmp_path):
    folder = write_reader(tmp_path, pixels=PIXELS[:, :40])
    assert "12.xml: drawn in an image of 48 x 40 pixels, the image 40 x 40" in refused_reader(folder)


def test_missing_and_damaged_images_are_refused(tmp_path):
    folder = write_reader(tmp_path)
    (tmp_path / "images" / "12.png").write_bytes(b"no picture")
    assert "12.png: not a readable image" in refused_reader(folder)
    assert "no image '99' in images.csv" in refused_reader(folder, "99")
    (folder / "12.xml").unlink()
    assert "surgeon: no XML file" in refused_reader(folder)
