"""The statement: sections of PS3.2 Annex N around tables that the code fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dicom_node import __version__
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.conformance import (
    association,
    content,
    created,
    integration,
    network,
    security,
    services,
)
from dicom_node.conformance.document import Document, Section, Table, contents
from dicom_node.flow.health import MIN_FREE_BYTES, MIN_FREE_SHARE
from dicom_node.results.equipment import CODING_SCHEME, DISCLAIMER, MANUFACTURER, MODEL_NAME

TITLE = f"DICOM Conformance Statement: {MANUFACTURER}"
DEFAULTS = "defaults, no configuration file"


def statement(
    config: NodeConfig, peers: Sequence[PeerConfig] = (), configuration: str = DEFAULTS
) -> Document:
    """Return the conformance statement of a configuration.

    Args:
        config: as loaded; paths of this machine and URLs with passwords are not told.
        peers: every peer, of the file and of the database.
        configuration: what the configuration is called in the statement.
    """
    overview = _overview()
    rest = [
        *_introduction(),
        *_model(config),
        *_services(),
        *_configuration(config, peers),
        *_details(config),
        *_security(config, peers),
        *_annexes(config),
    ]
    toc = Section("2", "Table of contents")
    listed = contents([*overview, toc, *rest])
    sections = (*overview, replace(toc, blocks=(listed,)), *rest)
    return Document(TITLE, _about(configuration), sections)


def _about(configuration: str) -> Table:
    rows = (
        ("product", MODEL_NAME),
        ("manufacturer", MANUFACTURER),
        ("version", __version__),
        ("configuration", configuration),
        ("structure", "DICOM PS3.2, Annex N"),
        ("made by", "`dicom-node conformance`"),
    )
    return Table("product", "Product", ("item", "value"), rows)


def _overview() -> list[Section]:
    return [
        Section("1", "Overview", (
            "The node receives prostate MRI studies by C-STORE, analyses them, and sends "
            "segmentations, a structured report and further result objects back into the same "
            f"study by C-STORE. {DISCLAIMER} Not a medical device.",
        )),
        Section("1.1", "Content and transfer", (services.content_and_transfer(),)),
        Section("1.1.1", "Structured report root templates", (content.root_templates(),)),
        Section("1.2", "DIMSE services", (services.overview(),)),
        Section("1.3", "DICOM web services", ("None.",)),
        Section("1.4", "Media services", (_MEDIA,)),
        Section("1.5", "Real-time video service", ("None.",)),
        Section("1.6", "De-identification profiles", (
            "None. Identity is copied into the results as it was received.",
        )),
        Section("1.7", "Specific character sets", ("See 5.7.",)),
    ]  # fmt: skip


_MEDIA = (
    "None: no file-set is written, no DICOMDIR is read. `dicom-node process` reads and writes "
    "single DICOM files (PS3.10) in folders, `dicom-node studies export` writes them."
)
_CHARACTER_SETS = (
    "Data sets in every character set are received and kept as the bytes that came. Identity is "
    "copied into results byte for byte together with Specific Character Set (0008,0005), so "
    "results are in the character set of their images; the text that the node itself writes is "
    "ASCII. Headers are decoded for the choice of series alone; text that does not fit its "
    "declared character set is no reason to refuse an image."
)


def _introduction() -> list[Section]:
    return [
        Section("3", "Introduction"),
        Section("3.1", "Revision history", (
            "The statement is printed by the version it describes; its history is that of the "
            "source code.",
        )),
        Section("3.2", "Audience", (
            "Administrators of a PACS or network, integrators, and engineers of the systems on "
            "the other side. DICOM terms are used as the standard defines them.",
        )),
        Section("3.3", "Remarks", (
            "A statement helps to judge whether two systems can work together; it does not "
            "replace a test of them. `dicom-node peers echo` and `dicom-node peers probe` begin "
            "one. The tables are filled from what the program runs on, those of the objects from "
            "objects that it encodes for made-up examinations.",
        )),
    ]  # fmt: skip


def _model(config: NodeConfig) -> list[Section]:
    return [
        Section("4", "Implementation model"),
        Section("4.1", "Application entity and data flow", (
            f"One Application Entity, `{config.node.ae_title}`, accepts associations on its port "
            "and opens those to its destinations.",
            "- Receive: instances of peers are stored durably, then acknowledged.\n"
            f"- Analyse: a study starts {config.study.quiet_s:g} s after its last image once its "
            "needed series are complete; without them it is reported as not analysable "
            f"{config.study.patience_s:g} s after its last image.\n"
            "- Send: result objects go to every peer that receives results, in the forms it "
            "takes.\n"
            "- Result objects of this product that come back are acknowledged and change nothing.",
        )),
    ]  # fmt: skip


def _services() -> list[Section]:
    return [
        Section("5", "Service and interoperability description"),
        Section("5.1", "Mapping of services to application entities", (
            "All services belong to the one Application Entity.",
        )),
        Section("5.2", "DIMSE services"),
        Section("5.2.1", "Storage as SCU", (
            "Objects are sent as stored. Where a peer takes only Implicit VR Little Endian they "
            "are sent in it; nothing is compressed. Objects of a class that a peer refuses are "
            "replaced by what it takes, or left out.",
            created.objects(),
        )),
        Section("5.2.2", "Storage as SCP", (
            "Level 2 (full): every attribute of an instance, private ones included, is kept as "
            "received, in the transfer syntax received; nothing is coerced. An instance that comes "
            "again with equal content is acknowledged once more; one with other content under the "
            "same UID is kept beside the first, acknowledged, and holds its study until somebody "
            "looks.",
            "Segmentations, structured reports and key objects are read as annotations by people: "
            "they begin no analysis and hold no study. Objects of the node itself that come back "
            "are acknowledged and not kept.",
        )),
        Section("5.2.3", "Storage commitment (push model) as SCU", (
            "Asked for a few seconds after a sending where a peer offers it (setting `verify` of "
            "the peer); the report is taken on the same association or on one that the peer "
            "opens. What is reported lost is sent again, byte for byte. Where a peer offers no "
            "commitment, each object is looked for by a query at IMAGE level (C-FIND, Study Root).",
        )),
        Section("5.2.4", "Storage commitment (push model) as SCP", (
            "A peer that may send and has a port configured is answered on an association of its "
            "own. Committed to is what has a row and whose stored bytes are those received, as "
            "long as retention keeps it (`[retention]`, section 6.1): this node is no archive. "
            "What was removed since is answered with 0112H, no such object instance.",
        )),
        Section("5.3", "DICOM web services", ("None.",)),
        Section("5.4", "Media services", (_MEDIA,)),
        Section("5.5", "Real-time video services", ("None.",)),
        Section("5.6", "Cross-service considerations", (
            "UIDs of results are a function of the input, the weights, the settings and their "
            "content; an object has the same bytes each time it is sent. Later images that change "
            "the input make a later revision: a report then names the one it replaces, and a "
            "rejection note (where a destination asks for it) names every object sent before.",
        )),
        Section("5.7", "Specific character sets", (_CHARACTER_SETS,)),
    ]  # fmt: skip


def _configuration(config: NodeConfig, peers: Sequence[PeerConfig]) -> list[Section]:
    return [
        Section("6", "Configuration"),
        Section("6.1", "General configuration parameters", (network.settings(config),)),
        Section("6.2", "Configuration of DIMSE services", (
            "Peers are set in the configuration file or by `dicom-node peers add`, without a "
            "restart.",
            network.ae_titles(config, peers),
        )),
    ]  # fmt: skip


def _details(config: NodeConfig) -> list[Section]:
    floor = f"{MIN_FREE_BYTES >> 20} MiB or {MIN_FREE_SHARE:.0%} of the disk, the smaller of both,"
    return [
        Section("7", "Network and media communication details"),
        Section("7.1", "General", (association.parameters(), association.bounds())),
        Section("7.2", "Specifications"),
        Section("7.2.1", "Association initiation", (
            services.activities(),
            "A slash separates contexts of their own, so that the peer cannot choose between them.",
            services.proposed(), association.retry_policy(config),
        )),
        Section("7.2.2", "Association acceptance", (
            "Of the transfer syntaxes that a requestor proposes in one context, the one is taken "
            "that stands first in this table.",
            services.accepted_contexts(), services.transfer_syntaxes(), association.rejections(),
        )),
        Section("7.3", "Status codes", (
            "An association is aborted where a PDU, a message or a wait is beyond its bound. "
            f"`A700` is returned where less than {floor} would stay free, beside 16 MiB for each "
            "study in work up to the same share.",
            association.answered(), association.understood(),
        )),
    ]  # fmt: skip


def _security(config: NodeConfig, peers: Sequence[PeerConfig]) -> list[Section]:
    return [
        Section("8", "Security"),
        Section("8.1", "Introduction", (
            "AE titles are names, not proof. Who may associate is decided by AE title and address "
            "together, over TLS also by certificate.",
        )),
        Section("8.2", "External network requirements", (
            "Names of peers are looked up in the DNS of the host where they are not addresses; "
            "the clock is that of the host. Nothing is downloaded.",
        )),
        Section("8.3", "TCP port configuration", (network.firewall(config, peers),)),
        Section("8.4", "DICOM security profiles", (security.profiles(config),)),
        Section("8.5", "User identity negotiation", ("None.",)),
        Section("8.6", "Web services security features", ("No DICOM web service.",)),
        Section("8.7", "Other security features", (association.access_rules(),)),
    ]  # fmt: skip


def _annexes(config: NodeConfig) -> list[Section]:
    private = created.private_attributes()
    return [
        Section("Annex A.A", "Information object definitions", (
            "Attributes of the first level. Presence: ALWAYS (with a value), VNAP (always, the "
            "value may be empty), EMPTY (always empty), ANAP (where it applies). Source: COPY (of "
            "the images), FIXED, AUTO (made by the node).",
            *created.attribute_tables(),
            f"Private attributes: {', '.join(private) if private else 'none'}. "
            f"Private SOP classes: none. Private coding scheme: `{CODING_SCHEME}`.",
        )),
        Section("Annex A.B", "Structured report content encoding", tuple(
            content.content_tree(kind) for kind in content.SR_KINDS
        )),
        Section("Annex A.C", "Security details", (security.secure_transport(config),)),
        Section("Annex A.D", "Mapping of attributes", (
            "What is marked COPY in Annex A.A has the tag it has in the images. The scanner "
            "(manufacturer, institution, station, model, serial number, software) is copied into "
            "Contributing Equipment Sequence (0018,A001) as Acquisition Equipment; the order "
            "(Request Attributes Sequence (0040,0275), Accession Number) into Referenced Request "
            "Sequence (0040,A370) of reports.",
        )),
        Section("Annex A.E", "Code set usage", (
            "A code that is not listed never leaves the node: the output gate holds the result.",
            content.coding_schemes(), content.code_sets(),
        )),
        Section("Annex A.F", "IHE integration", (
            "Actor: Evidence Creator of AI Results (AIR), IHE Radiology. This says how the "
            "results are encoded; it is not the record of a test at a Connectathon.",
            integration.primitives(), integration.requirements(),
        )),
    ]  # fmt: skip
