-- Orthanc: send prostate MRI to the node. A series goes once no image of it has come for StableAge
-- seconds. Segmentations, reports and key objects go too: what radiologists edit is the feedback.
-- What the node itself sent stays here.

local NODE = 'prostate-node'   -- name of the node under DicomModalities
local NODE_AE_TITLE = 'PROSTATE_AI'
local ROUTED = { MR = true, SEG = true, SR = true, KO = true }

local function is_prostate(series, study)
  for _, text in ipairs({ series['BodyPartExamined'] or '', series['ProtocolName'] or '',
                          series['SeriesDescription'] or '', study['StudyDescription'] or '' }) do
    if string.find(string.lower(text), 'prostat') then
      return true
    end
  end
  return false
end

function OnStableSeries(seriesId, tags, metadata)
  if not ROUTED[tags['Modality']] or metadata['RemoteAET'] == NODE_AE_TITLE then
    return
  end
  local study = ParseJson(RestApiGet('/series/' .. seriesId .. '/study'))
  if is_prostate(tags, study['MainDicomTags']) then
    local job = { Resources = { seriesId }, Asynchronous = true }   -- one association for the series
    RestApiPost('/modalities/' .. NODE .. '/store', DumpJson(job))
  end
end
